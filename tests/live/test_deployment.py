"""The examples in docs/deployment.md, run as they are written."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.certificates import Tls
from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import ROOT, BackendProcess, stream_events
from tests.raw_server import Connection, raw_server

pytestmark = pytest.mark.live

GUIDE = (ROOT / "docs" / "deployment.md").read_text()
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
KEY = "0123456789abcdefghijklmnop"
MEGABYTE = 1_000_000


def example(language: str, holding: str) -> str:
    """Return the only example in *language* that holds the text *holding*."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL) if holding in text]
    return str(found)


def test_key_is_made_once_kept_private_and_shown(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BACKEND_PORT=9000")  # no line break at its end

    runs = [
        subprocess.run(
            ["sh", "-e"], input=example("sh", "token_urlsafe"), cwd=tmp_path, capture_output=True, text=True
        )
        for _ in range(2)
    ]

    assert runs[0].stdout == runs[1].stdout
    assert re.fullmatch(r"[\w-]{43}\n", runs[0].stdout)
    assert (tmp_path / ".env").read_text() == f"BACKEND_PORT=9000\nBACKEND_API_KEY={runs[0].stdout}"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


@contextmanager
def nginx(folder: Path, backend: str, tls: Tls) -> Iterator[str]:
    """Run nginx with the example before *backend*; yield its address."""
    port = free_port()
    server = example("nginx", "proxy_pass")
    for written, here in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server_name llm.example;": "server_name localhost;",
        "/etc/ssl/llm.example.pem": str(tls.identity),
        "/etc/ssl/llm.example.key": str(tls.identity),
        "http://127.0.0.1:8002": backend,
    }.items():
        assert written in server
        server = server.replace(written, here)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{server}}}"
    )
    with subprocess.Popen([NGINX or "", "-c", str(config), "-e", f"{folder}/error.log"]) as process:
        try:
            url = f"https://localhost:{port}"
            wait_until(lambda: process.poll() is not None or _answers(url, tls))
            assert process.poll() is None, (folder / "error.log").read_text()
            yield url
        finally:
            process.terminate()


def _answers(url: str, tls: Tls) -> bool:
    try:
        requests.get(f"{url}/api/health", verify=str(tls.authority), timeout=10)
    except (requests.ConnectionError, requests.Timeout):
        return False
    return True


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_nginx_passes_streams_and_uploads_and_needs_a_key(tmp_path: Path, tls: Tls) -> None:
    seen_first = threading.Event()

    def answer(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n')
        seen_first.wait(30)  # the client has the first part before the second is sent
        connection.send_chunk(
            b'data: {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        )
        connection.end()

    with (
        raw_server(answer) as upstream,
        BackendProcess(
            tmp_path / "data", upstream.url, ("--enable", "ollama"), BACKEND_API_KEY=KEY
        ) as backend,
        nginx(tmp_path, backend.url, tls) as url,
        requests.Session() as session,
    ):
        session.trust_env, session.verify = False, str(tls.authority)
        assert session.post(f"{url}/api/chat", json={"message": "Hi"}, timeout=30).status_code == 401
        session.headers.update(
            {"Authorization": f"Bearer {KEY}", "Origin": url, "Sec-Fetch-Site": "same-origin"}
        )

        body = {"message": "Hi", "model": "x", "stream": True}
        with session.post(f"{url}/api/chat", json=body, stream=True, timeout=30) as response:
            names = []
            for name, _ in stream_events(response):
                names.append(name)
                if name == "delta":
                    seen_first.set()
        assert names == ["start", "delta", "delta", "done"]

        upload = session.post(
            f"{url}/api/providers/ollama/create?model=mine&digest=sha256:{'0' * 64}",
            data=iter([b"x" * MEGABYTE] * 50),
            headers={"Content-Type": "application/octet-stream"},
            timeout=60,
        )
        assert upload.json()["error_type"] == "invalid_upload"  # nginx does not refuse it

        foreign = session.get(f"{url}/api/settings", headers={"Origin": "https://evil.example"}, timeout=30)
        assert foreign.json()["error_type"] == "origin_not_allowed"


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_nginx_before_a_backend_without_a_key_opens_nothing(tmp_path: Path, tls: Tls) -> None:
    with (
        BackendProcess(tmp_path / "data", "http://127.0.0.1:9") as backend,
        nginx(tmp_path, backend.url, tls) as url,
    ):
        for method, path in (("GET", "/api/settings"), ("GET", "/api/health"), ("PUT", "/api/settings")):
            response = requests.request(method, url + path, json={}, verify=str(tls.authority), timeout=30)

            assert (response.status_code, response.json()["error_type"]) == (403, "key_required")
            assert "BACKEND_API_KEY" in response.json()["hint"]

"""Clients that are slow, silent, without a key or not plain HTTP, against the real servers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import ROOT, BackendProcess, stream_events
from tests.raw_server import Connection, raw_server
from tests.unit.server.conftest import Answer, read

pytestmark = pytest.mark.live

KEY = "0123456789abcdefghijklmnop"
NOWHERE = "http://127.0.0.1:9"
Serve = Callable[[Path], AbstractContextManager[str]]


@contextmanager
def _waitress(data_dir: Path) -> Iterator[str]:
    with BackendProcess(data_dir, NOWHERE, BACKEND_API_KEY=KEY) as backend:
        yield backend.url


@contextmanager
def _gunicorn(data_dir: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    env = {**os.environ, "BACKEND_DATA_DIR": str(data_dir), "BACKEND_API_KEY": KEY}
    flags = ["-k", "gthread", "-w", "1", "--threads", "4", "-b", urlsplit(url).netloc]
    data_dir.mkdir()
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", *flags, "app.wsgi:app"]
    with (
        (data_dir / "log").open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: _is_up(url), 60)
            yield url
        finally:
            process.terminate()


def _is_up(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError, requests.Timeout):
        return requests.get(f"{url}/api/health", timeout=10).ok
    return False


def _connect(url: str, data: bytes = b"") -> socket.socket:
    to = urlsplit(url)
    connection = socket.create_connection((to.hostname or "", to.port or 0), timeout=30)
    connection.sendall(data)
    return connection


def _ask(url: str, data: bytes) -> Answer:
    with _connect(url, data) as connection:
        return read(connection)


@pytest.mark.parametrize("serve", [_waitress, _gunicorn])
def test_body_with_faulty_chunks_is_invalid(tmp_path: Path, serve: Serve) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with serve(tmp_path / "data") as url:
        answer = _ask(url, head + b"ZZ\r\n{}\r\n0\r\n\r\n")

        assert (answer.status, answer.json["error_type"]) == (400, "bad_request")


@pytest.mark.parametrize("serve", [_waitress, _gunicorn])
def test_head_is_judged_before_its_body_has_come(tmp_path: Path, serve: Serve) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with serve(tmp_path / "data") as url:
        answer = _ask(url, head + b"Connection: close\r\nContent-Length: 300000000\r\n\r\n")

        assert (answer.status, answer.json["error_type"]) == (401, "unauthorized")

        with_key = head + f"X-API-Key: {KEY}\r\n".encode()
        answer = _ask(url, with_key + b"Connection: close\r\nContent-Length: 300000000\r\n\r\n")

        assert (answer.status, answer.json["error_type"]) == (413, "body_too_large")


@pytest.mark.parametrize("serve", [_waitress, _gunicorn])
def test_head_that_is_not_plain_http_is_refused_and_nothing_after_it_is_served(
    tmp_path: Path, serve: Serve
) -> None:
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n".encode()
    smuggled = f"GET /api/settings HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n".encode()
    with serve(tmp_path / "data") as url:
        for fields in (
            b"Content-Length: " + b"9" * 5000,
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"X-A: b\r\n c: d",
            b"X-A : b",
            b"X-A: b\rc",
        ):
            answer = _ask(url, head + fields + b"\r\n\r\n0\r\n\r\n" + smuggled)

            assert answer.status in {400, 501}, fields
            assert b"default_provider" not in answer.data, fields
            assert b"Traceback" not in answer.data, fields


@pytest.mark.parametrize("serve", [_waitress, _gunicorn])
def test_headers_do_not_change_the_path_or_the_client(tmp_path: Path, serve: Serve) -> None:
    with serve(tmp_path / "data") as url:
        for headers in (
            {"SCRIPT_NAME": "/api"},
            {"PATH_INFO": "/api/health"},
            {"X_API_KEY": KEY},
            {"X-Original-URL": "/api/health"},
            {"X-HTTP-Method-Override": "OPTIONS"},
            {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost"},
        ):
            refused = requests.get(f"{url}/api/settings", headers=headers, timeout=30)
            with_key = requests.get(f"{url}/api/settings", headers={**headers, "X-API-Key": KEY}, timeout=30)

            assert (refused.status_code, with_key.status_code) == (401, 200), headers


@pytest.mark.parametrize("command", [("-m", "gunicorn", "app.wsgi:app"), ("backend_server.py",)])
def test_name_for_others_without_a_key_is_refused_at_the_start(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    listen = {"GUNICORN_CMD_ARGS": f"--no-control-socket -b 127.0.0.1:{free_port()}", "BACKEND_PORT": "0"}
    env = {**os.environ, **listen, "BACKEND_DATA_DIR": str(tmp_path), "BACKEND_ALLOWED_HOSTS": "llm.example"}

    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )

    assert run.returncode
    assert "Refusing to serve llm.example (BACKEND_ALLOWED_HOSTS) without a key" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /api/health HTTP/1.1\r\nHost: loc",
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{",
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
        b"Content-Type: application/json\r\n\r\n{",
    ],
    ids=["idle", "head", "body", "large-body"],
)
def test_server_answers_beside_many_silent_connections(tmp_path: Path, begun: bytes) -> None:
    with (
        BackendProcess(tmp_path / "data", NOWHERE, BACKEND_CONNECTIONS="100") as backend,
        ExitStack() as connections,
    ):
        for _ in range(300):
            connections.enter_context(_connect(backend.url, begun))

        assert backend.get("/api/health").ok

    assert backend.log.count("silent ones are closed") == 1


def test_streams_go_on_while_silent_connections_are_closed(tmp_path: Path) -> None:
    may_end = threading.Event()

    def answer(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n')
        may_end.wait(60)
        connection.send_chunk(
            b'data: {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        )
        connection.end()

    settings = {"BACKEND_CONNECTIONS": "40", "BACKEND_CLIENT_TIMEOUT": "1", "BACKEND_HEAD_TIMEOUT": "1"}
    with (
        raw_server(answer) as upstream,
        BackendProcess(tmp_path / "data", upstream.url, ("--enable", "ollama"), **settings) as backend,
        ExitStack() as open_now,
    ):
        body = {"message": "Hi", "model": "x", "stream": True}
        streams = []
        for _ in range(10):
            response = open_now.enter_context(backend.post("/api/chat", body, stream=True))
            streams.append(stream_events(response))
        assert all([next(events)[0], next(events)[0]] == ["start", "delta"] for events in streams)
        silent = [open_now.enter_context(_connect(backend.url, b"GET / HTTP/1.1\r\n")) for _ in range(100)]

        assert backend.get("/api/health").ok
        for connection in silent:  # each was closed to make room, or answered with 408 after a second
            with contextlib.suppress(ConnectionError):
                assert read(connection).status in {0, 408}
        may_end.set()

        assert all([name for name, _ in events][-1] == "done" for events in streams)

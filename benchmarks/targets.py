"""The servers to measure: how each is started and stopped, its requests, its memory and CPU time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from app.version import __version__
from benchmarks.load import post
from benchmarks.wire import MODELS

ROOT = Path(__file__).resolve().parent.parent
LITELLM = Path(os.environ.get("BENCH_LITELLM", ROOT / "benchmarks" / ".litellm"))

_START_LIMIT = 120.0  # seconds
_POLL = 0.005
_REST = 0.05  # CPU seconds per second that a resting server may use

_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass
class Target:
    """A server to measure.

    :param command: the command that starts it
    :param health: a path that it answers with 200 when it is ready
    :param ours: whether requests use this backend's ``/api/chat``, not OpenAI's API
    """

    name: str
    command: list[str]
    port: int
    folder: Path
    health: str = "/v1/models"
    ours: bool = False
    env: dict[str, str] = field(default_factory=dict)
    version: str = ""
    process: subprocess.Popen[bytes] | None = None

    def ask(self, model: str, stream: bool) -> bytes:
        """Return the request for a chat."""
        message = "Why is the sky blue?"
        if self.ours:
            body = {"message": message, "provider": "ollama", "model": model, "stream": stream}
            return post("/api/chat", body)
        messages = [{"role": "user", "content": message}]
        return post("/v1/chat/completions", {"model": model, "messages": messages, "stream": stream})

    def start(self) -> float:
        """Start it, and return the seconds until it answered its first request."""
        started = time.perf_counter()
        log_file = self.folder / f"{self.name.split()[0]}.log"
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(  # the command is made here  # noqa: S603
                self.command, cwd=ROOT, env={**os.environ, **self.env}, stdout=log, stderr=log
            )
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() - started > _START_LIMIT:
                told = log_file.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{self.name} does not start:\n{told}")
            time.sleep(_POLL)
        return time.perf_counter() - started

    def settle(self) -> None:
        """Wait until it uses no CPU time: what it loads after its first answer counts as its memory."""
        before = None
        while (now := self.cpu()) is not None and (before is None or now - before > _REST):
            before = now
            time.sleep(1)

    def stop(self) -> None:
        """Stop the server; do nothing when it does not run."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self) -> float | None:
        """Return the resident megabytes of all its processes; None without /proc."""
        pages = [int(_proc(pid, "statm").split()[1]) for pid in self._pids()]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else None

    def cpu(self) -> float | None:
        """Return the CPU seconds that all its processes used; None without /proc."""
        found = [_proc(pid, "stat").rpartition(")")[2].split() for pid in self._pids()]
        return sum(int(f[11]) + int(f[12]) for f in found) / os.sysconf("SC_CLK_TCK") if found else None

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False

    def _pids(self) -> list[int]:
        if self.process is None or not Path("/proc/self/statm").exists():
            return []
        found = [self.process.pid]
        for pid in found:  # the list grows during the loop
            found += map(int, _proc(pid, f"task/{pid}/children").split())
        return found


def targets(folder: Path, wanted: list[str]) -> Iterator[Target]:
    """Yield the upstream, then the *wanted* targets; those that are not installed are left out."""
    upstream = Target(
        "upstream", [sys.executable, "-m", "benchmarks.upstream"], free_port(), folder, "/api/version"
    )
    upstream.command.append(str(upstream.port))
    yield upstream
    for make in (_nginx, _litellm, _backend, _gunicorn):
        if any(make.__name__.startswith(f"_{name}") for name in wanted):
            target = make(folder, upstream.port)
            if target is None:
                print(f"{make.__name__[1:]} is not installed: left out.", file=sys.stderr)
            else:
                yield target


def _nginx(folder: Path, upstream: int) -> Target | None:
    program = shutil.which("nginx")
    if program is None:
        return None
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, upstream=upstream, port=port))
    told = _output([program, "-v"])
    return Target("nginx", [program, "-c", str(config)], port, folder, version=told.rpartition("/")[2])


def _litellm(folder: Path, upstream: int) -> Target | None:
    program = LITELLM / "bin" / "litellm"
    if not program.exists():
        return None
    base = {"api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    models = [{"model_name": "*", "litellm_params": {"model": "openai/*", **base}}]
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models}))
    port = free_port()
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    code = "from importlib.metadata import version; print(version('litellm'))"
    told = _output([str(LITELLM / "bin" / "python"), "-c", code])
    env = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # no target checks a key
    return Target("LiteLLM proxy", command, port, folder, "/health/liveliness", False, env, told)


def _backend(folder: Path, upstream: int) -> Target:
    port = free_port()
    command = [sys.executable, "backend_server.py", "--port", str(port)]
    env = _data_folder(folder / "waitress", upstream)
    return Target("backend_server.py", command, port, folder, "/api/health", True, env, __version__)


def _gunicorn(folder: Path, upstream: int) -> Target | None:
    program = Path(sys.executable).parent / "gunicorn"
    if not program.exists():
        return None
    port = free_port()
    flags = ["-k", "gthread", "--threads", "600", "--worker-connections", "2000", "--backlog", "1024"]
    command = [sys.executable, str(program), *flags, "-b", f"127.0.0.1:{port}", "app.wsgi:app"]
    env = _data_folder(folder / "gunicorn", upstream)
    return Target("gunicorn app.wsgi", command, port, folder, "/api/health", True, env, __version__)


def _data_folder(folder: Path, upstream: int) -> dict[str, str]:
    """Return the environment for a backend with the data folder *folder* and the upstream as its Ollama."""
    folder.mkdir()
    provider = {"base_url": f"http://127.0.0.1:{upstream}/v1", "model": MODELS[0]}
    (folder / "providers.json").write_text(json.dumps({"ollama": provider}))
    return {"BACKEND_DATA_DIR": str(folder), "BACKEND_ENABLE": "ollama"}


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return (done.stdout + done.stderr).strip()


def _proc(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text()
    return ""

"""``backend_server.py --workers N``: several processes serve one port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from app.config import StartFailed
from app.server import start_workers
from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import BackendProcess, stream_events
from tests.raw_server import Connection, raw_server
from tests.sockets import is_open

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
pytestmark = [pytest.mark.live, needs_proc]

NOWHERE = "http://127.0.0.1:9"
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
DELTA = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):  # each lists what it started itself
        with contextlib.suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def workers(backend: BackendProcess, number: int = 2) -> list[int]:
    """Return the process ids of the workers, when *number* of them run."""
    assert backend.process is not None
    pid = backend.process.pid
    wait_until(lambda: len(children(pid)) == number, 60)
    return children(pid)


def connect(backend: BackendProcess) -> socket.socket:
    host, _, port = backend.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(HEALTH)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    return connection


def test_workers_share_the_connections_and_one_that_dies_is_started_again(tmp_path: Path) -> None:
    with BackendProcess(tmp_path / "data", NOWHERE, ("--workers", "2")) as backend:
        first, second = workers(backend)
        wait_until(lambda: len(os.listdir(f"/proc/{second}/task")) >= 5, 60)  # noqa: PTH208 - it serves
        connections = [connect(backend) for _ in range(16)]

        os.kill(second, signal.SIGKILL)

        wait_until(lambda: not all(is_open(connection) for connection in connections))
        kept = [connection for connection in connections if is_open(connection)]
        assert 0 < len(kept) < 16
        assert requests.get(f"{backend.url}/api/health", timeout=60).ok
        wait_until(lambda: len(workers(backend)) == 2 and second not in workers(backend), 60)
        assert first in workers(backend)
        assert f"Worker 1, process {second}, ended with signal 9; it is started again." in backend.log
        for connection in connections:
            connection.close()


def test_stop_ends_the_streams_of_all_workers_and_all_processes(tmp_path: Path) -> None:
    begun = threading.Semaphore(0)

    def answer(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(DELTA)
        begun.release()
        connection.wait_for_close()

    with (
        raw_server(answer) as upstream,
        BackendProcess(tmp_path / "data", upstream.url, ("--enable", "ollama", "--workers", "2")) as backend,
    ):
        pids = workers(backend)
        streams = [
            backend.post("/api/chat", {"message": "Hi", "model": "x", "stream": True}, stream=True)
            for _ in range(4)
        ]
        for _ in streams:
            assert begun.acquire(timeout=60)

        assert backend.process is not None
        backend.process.terminate()

        for stream in streams:
            name, data = list(stream_events(stream))[-1]
            assert (name, data["error_type"]) == ("error", "server_stopping")
        assert backend.process.wait(20) == 0
        assert not any(is_alive(pid) for pid in pids)
        assert "started again" not in backend.log


def test_workers_end_with_the_process_that_keeps_them(tmp_path: Path) -> None:
    with BackendProcess(tmp_path / "data", NOWHERE, ("--workers", "2")) as backend:
        pids = workers(backend)
        assert backend.process is not None

        backend.process.kill()

        wait_until(lambda: not any(is_alive(pid) for pid in pids), 60)


def test_only_one_worker_starts_the_engine(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with BackendProcess(tmp_path / "data", url, ("--workers", "3", "--ollama", "embedded")) as backend:
        pids = workers(backend, 3)
        started = [child for pid in pids for child in children(pid)]
        assert "started the embedded engine" in backend.greeting
        assert [b"app.engine" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in started] == [True]


def test_workers_that_cannot_start_are_not_started_for_ever(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "backend.db").write_bytes(b"damaged" * 1000)
    env = {**os.environ, "BACKEND_DATA_DIR": str(tmp_path / "data"), "BACKEND_WORKERS": "2"}
    command = ["backend_server.py", "--port", "0"]

    done = subprocess.run(
        [sys.executable, *command], env=env, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1


def test_system_that_cannot_fork_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")

    with pytest.raises(StartFailed, match="Windows"):
        start_workers(2)

"""The engine as a process under many requests at once: no kind of request starves the others."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.engine.serving import BUSY, Lane
from tests.engine.conftest import MODEL
from tests.engine.process import EngineProcess, wait_until
from tests.raw_server import raw_server

pytestmark = pytest.mark.live


@contextmanager
def silent_registry() -> Iterator[str]:
    """A registry that takes each request and never answers."""
    over = threading.Event()
    with raw_server(lambda _: over.wait(120) and None) as registry:
        try:
            yield f"127.0.0.1:{registry.port}"
        finally:
            over.set()


def begin(engine: EngineProcess, path: str, body: object) -> socket.socket:
    """Send a request, and return its connection without reading the answer."""
    host, _, port = engine.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), 30)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def has_line(connection: socket.socket, text: str) -> bool:
    """Read until *text* comes; False when the connection ends before."""
    received = b""
    while text.encode() not in received:
        part = connection.recv(4096)
        if not part:
            return False
        received += part
    return True


def assert_serves(engine: EngineProcess) -> None:
    """Check that lists, descriptions and a chat are answered."""
    for path in ("/api/version", "/api/tags", "/api/ps", "/v1/models"):
        assert engine.get(path).status_code == 200, path
    assert engine.post("/api/show", {"model": MODEL}).status_code == 200
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "options": {"num_predict": 2}}
    assert engine.post("/api/chat", body | {"stream": False}).status_code == 200


def test_pulls_from_a_silent_registry_leave_lists_and_chats_alone(own_engine: EngineProcess) -> None:
    with silent_registry() as registry, ExitStack() as stack:
        for number in range(150):
            body = {"model": f"{registry}/library/m{number}:latest", "insecure": True}
            connection = stack.enter_context(begin(own_engine, "/api/pull", body))
            if number in {0, 149}:
                assert has_line(connection, "pulling manifest")

        assert_serves(own_engine)


def test_more_pulls_than_there_are_threads_are_refused_as_ollama_does(tmp_path: Path) -> None:
    with (
        EngineProcess(tmp_path / "models", files=400) as engine,  # room for 66 connections, so for 16 pulls
        silent_registry() as registry,
        ExitStack() as stack,
    ):
        for number in range(16):
            body = {"model": f"{registry}/library/m{number}:latest", "insecure": True}
            connection = stack.enter_context(begin(engine, "/api/pull", body))
            assert b"HTTP/1.1 200" in connection.recv(12)

        refused = engine.post("/api/pull", {"model": f"{registry}/library/more", "insecure": True})

        assert (refused.status_code, refused.json()) == (503, {"error": BUSY})
        assert refused.headers["Retry-After"] == "1"
        assert_serves(engine)


def test_idle_connections_give_way_to_new_ones(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "models", files=400) as engine, ExitStack() as stack:
        host, _, port = engine.url.removeprefix("http://").partition(":")
        for number in range(200):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 30))
            connection.sendall(b"GET /api/tags HTTP/1.1\r\nX-Slow: " + b"x" * (number % 5))

        assert_serves(engine)


def test_slow_uploads_and_stuck_readers_leave_the_others_alone(own_engine: EngineProcess) -> None:
    host, _, port = own_engine.url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        for number in range(150):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 30))
            digest = f"sha256:{number:064x}"
            head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"
            connection.sendall(head.encode() + b"GGUF")
        for _ in range(20):
            messages = [{"role": "user", "content": "Write a very long story."}]
            stack.enter_context(begin(own_engine, "/api/chat", {"model": MODEL, "messages": messages}))

        for path in ("/api/version", "/api/tags", "/api/ps", "/v1/models"):
            assert own_engine.get(path).status_code == 200, path


class Task:
    """A request that runs until it is let go."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on
        self.begun, self.cancelled = threading.Event(), threading.Event()

    def service(self) -> None:
        self.begun.set()
        self._go_on.wait(10)

    def cancel(self) -> None:
        self.cancelled.set()


def test_lane_runs_keeps_waiting_and_refuses() -> None:
    lane, go_on = Lane(threads=2, waiting=1), threading.Event()
    tasks = [Task(go_on) for _ in range(4)]

    taken = [lane.add(task) for task in tasks]

    assert taken == [True, True, True, False]
    assert all(task.begun.wait(5) for task in tasks[:2])
    assert not tasks[2].begun.is_set()
    go_on.set()
    assert tasks[2].begun.wait(5)
    wait_until(lambda: lane.add(Task(go_on)))


def test_lane_that_closes_cancels_what_waits() -> None:
    lane, go_on = Lane(threads=1, waiting=1), threading.Event()
    running, waiting = Task(go_on), Task(go_on)
    lane.add(running)
    lane.add(waiting)
    assert running.begun.wait(5)

    lane.close(0.01)

    assert waiting.cancelled.is_set()
    go_on.set()

"""The app on the real server, in a thread of the test."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from app import create_app
from app.config import Config
from app.server import make_listener
from app.server.listener import Listener

HOST = "Host: localhost\r\n"


class Served:
    """A running server, and raw connections to it."""

    def __init__(self, listener: Listener, address: tuple[str, int]) -> None:
        self.listener = listener
        self.address = address

    def connect(self, data: bytes = b"") -> socket.socket:
        """Return a new connection, on which *data* was sent."""
        connection = socket.create_connection(self.address, timeout=20)
        connection.sendall(data)
        return connection

    def ask(self, head: str, body: bytes = b"") -> Answer:
        """Send a request, and return its answer; the server closes the connection after it."""
        with self.connect(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body) as connection:
            return read(connection)


class Answer:
    """A parsed answer, and the bytes that came after it."""

    def __init__(self, data: bytes) -> None:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.data = data
        self.status = int(first.split(" ")[1]) if first else 0
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(self.headers.get("content-length", len(rest)))
        self.body, self.rest = rest[:length], rest[length:]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def read(connection: socket.socket) -> Answer:
    """Return all bytes until the server closes *connection*."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return Answer(data)


Serve = Callable[..., AbstractContextManager[Served]]


@contextlib.contextmanager
def serving(app: Any, config: Config) -> Iterator[Served]:
    """Serve *app*, which may be any WSGI application that gets no large bodies."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener = make_listener(app, config, sock)
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            listener.asyncore.loop(timeout=1, map=listener._map, use_poll=True, count=1)

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        yield Served(listener, sock.getsockname())
    finally:
        stopping.set()
        listener.pull_trigger()
        thread.join()
        listener.task_dispatcher.shutdown()
        listener.asyncore.close_all(listener._map)


@pytest.fixture
def serve(config: Config) -> Serve:
    """A function that serves the app with other settings: ``with serve(api_key="...") as served``."""

    @contextlib.contextmanager
    def start(**settings: Any) -> Iterator[Served]:
        changed = replace(config, **settings)
        app = create_app(changed)
        try:
            with serving(app, changed) as served:
                yield served
        finally:
            app.extensions["services"].close()

    return start


@pytest.fixture
def served(serve: Serve) -> Iterator[Served]:
    with serve() as served:
        yield served

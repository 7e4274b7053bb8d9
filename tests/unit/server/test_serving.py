"""A thread serves the requests of one connection as long as they follow each other closely."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from app.config import Config
from app.server import serving as serving_module
from tests.engine.process import wait_until
from tests.unit.server.conftest import Served, read, serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
LAST = b"Connection: close\r\n"


class App:
    """A WSGI application: /thread names its thread, /wait waits, /stream streams, /fail fails."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.left = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/fail":
            raise RuntimeError("a secret")
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/stream":
            return iter([b"one", b"two"])
        if path == "/wait":
            return self._wait(environ)
        return [threading.current_thread().name.encode() + b"."]

    def _wait(self, environ: dict[str, Any]) -> Iterator[bytes]:
        self.begun.set()
        while not self.go_on.wait(0.01):
            if environ["waitress.client_disconnected"]():
                self.left.set()
                return
        yield b"waited"


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def served(app: App, config: Config) -> Iterator[Served]:
    with serving(app, config) as served:
        yield served
        app.go_on.set()


def receive(connection: socket.socket, end: bytes) -> bytes:
    """Return what comes on *connection* up to *end*."""
    data = b""
    while not data.endswith(end):
        part = connection.recv(65536)
        assert part, data
        data += part
    return data


def test_thread_stays_with_its_connection_and_hands_it_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "_MOMENT", 20)  # the server's thread is not needed
    with served.connect() as first, served.connect() as second:
        names = []
        for connection in (first, second, second, first, second, first):
            connection.sendall(GET % (b"/thread", b""))
            names.append(receive(connection, b".").rpartition(b"\r\n")[2])

        a, b = names[:2]
        assert a != b
        assert names[2:] == [b, a, b, a]
        assert all(connection.has_thread for connection in served.listener.active_channels.values())

    wait_until(lambda: not served.listener.active_channels)


def test_silent_connection_needs_no_thread(served: Served) -> None:
    with served.connect(GET % (b"/thread", b"")) as connection:
        receive(connection, b".")

        wait_until(lambda: not served.listener.task_dispatcher.active_count)
        connection.sendall(GET % (b"/thread", b""))
        assert receive(connection, b".")


def test_busy_connection_gives_its_thread_to_requests_that_wait(app: App, config: Config) -> None:
    with (
        serving(app, replace(config, threads=1)) as served,
        served.connect(
            GET % (b"/wait", b"") + GET % (b"/thread", b"") * 500 + GET % (b"/thread", LAST)
        ) as busy,
        served.connect() as other,
    ):
        assert app.begun.wait(20)
        other.sendall(GET % (b"/thread", LAST))
        wait_until(lambda: served.listener.task_dispatcher.queue)
        app.go_on.set()

        assert read(other).status == 200
        assert read(busy).data.count(b"HTTP/1.1 200 OK") == 502


def test_stream_and_answer_without_body_keep_the_connection(served: Served) -> None:
    head = GET.replace(b"GET", b"HEAD") % (b"/stream", b"")
    stream = GET % (b"/stream", b"")
    with served.connect(stream + head + stream + GET % (b"/thread", LAST)) as connection:
        answers = read(connection).data.split(b"HTTP/1.1 200 OK\r\n")[1:]

    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers]
    chunks = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert bodies[:3] == [chunks, b"", chunks]
    assert len(bodies) == 4
    assert [b"Connection: close" in answer for answer in answers] == [False, False, False, True]


def test_stream_ends_with_the_connection_for_an_old_client(served: Served) -> None:
    with served.connect(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") as connection:
        answer = read(connection)

    assert (answer.headers["connection"], answer.body) == ("close", b"onetwo")


def test_request_that_comes_during_another_is_served_after_it(app: App, served: Served) -> None:
    with served.connect(GET % (b"/wait", b"")) as connection:
        assert app.begun.wait(20)
        connection.sendall(GET % (b"/thread", LAST))
        wait_until(lambda: any(c._ahead for c in list(served.listener.active_channels.values())))
        app.go_on.set()

        answers = read(connection).data.split(b"HTTP/1.1 200 OK\r\n")[1:]

    assert b"waited" in answers[0]
    assert answers[1].endswith(b".")


@pytest.mark.parametrize("more", [b"", b"GET /thr", GET % (b"/thread", b"")])
def test_client_that_leaves_is_noticed_whatever_it_sent_before(app: App, served: Served, more: bytes) -> None:
    with served.connect(GET % (b"/wait", b"")) as connection:
        assert app.begun.wait(20)
        connection.sendall(more)

    assert app.left.wait(20)
    wait_until(lambda: not served.listener.active_channels)


def test_failure_is_our_error_and_the_server_serves_on(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    answer = served.ask("GET /fail HTTP/1.1\nHost: localhost")

    assert (answer.status, answer.json["error_type"]) == (500, "internal_error")
    assert b"secret" not in answer.data
    assert served.ask("GET /thread HTTP/1.1\nHost: localhost\nConnection: close").status == 200
    assert "/fail failed" in caplog.text

"""Reading an upstream without being held up by it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from app.upstream.reading import SilentUpstream, read


class SocketBody:
    """A body that is what the other end of a socket pair sends."""

    receive = None

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.closed = threading.Event()

    def chunks(self) -> Iterator[bytes]:
        while data := self.near.recv(1000):
            yield data

    def connection(self) -> socket.socket | None:
        return self.near

    def close(self) -> None:
        self.near.close()
        self.closed.set()


class WaitingBody(SocketBody):
    """A body that can be waited for, so that no thread has to read it."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[str] = set()

    def receive(self) -> bytes | None:  # type: ignore[override]
        self.readers.add(threading.current_thread().name)
        self.near.settimeout(0.01)
        try:
            return self.near.recv(1000) or None
        except TimeoutError:
            return b""

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("it is received")


@pytest.fixture(params=[SocketBody, WaitingBody])
def body(request: pytest.FixtureRequest) -> Iterator[SocketBody]:
    body = request.param()
    yield body
    body.near.close()
    body.far.close()


def _read(body: SocketBody, seconds: float = 10) -> Iterator[bytes]:
    return read(lambda _: body, first_byte=seconds, idle=seconds)


def test_read_yields_all_bytes_in_order_and_closes(body: SocketBody) -> None:
    body.far.sendall(b"a" * 5000)
    body.far.close()

    assert b"".join(_read(body)) == b"a" * 5000
    assert body.closed.wait(5)


def test_read_gives_a_turn_while_the_upstream_is_silent(body: SocketBody) -> None:
    chunks = _read(body)

    assert next(chunks) == b""
    body.far.sendall(b"x")
    assert next(data for data in chunks if data) == b"x"


def test_read_of_a_silent_upstream_ends_after_the_limit_and_hangs_up(body: SocketBody) -> None:
    chunks = read(lambda _: body, first_byte=0.1, idle=60)

    with pytest.raises(SilentUpstream):
        list(chunks)

    assert body.far.recv(1) == b""  # hung up


def test_read_limits_the_silence_between_bytes(body: SocketBody) -> None:
    body.far.sendall(b"x")
    chunks = read(lambda _: body, first_byte=60, idle=0.1)

    assert next(chunks) == b"x"
    with pytest.raises(SilentUpstream):
        list(chunks)


def test_close_hangs_up_at_once(body: SocketBody) -> None:
    body.far.sendall(b"x")
    chunks = _read(body)
    assert next(chunks) == b"x"

    chunks.close()  # type: ignore[attr-defined]

    assert body.far.recv(1) == b""
    assert body.closed.wait(5)


def test_close_before_the_upstream_answered_closes_it_when_it_does(body: SocketBody) -> None:
    may_open = threading.Event()

    def open_body(_: object) -> SocketBody:
        may_open.wait(5)
        return body

    chunks = read(open_body, first_byte=60, idle=60)
    assert next(chunks) == b""

    chunks.close()
    may_open.set()

    assert body.closed.wait(5)


def test_close_after_the_end_leaves_the_connection_alone() -> None:
    class Kept(SocketBody):
        def chunks(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:  # back to a pool: it stays open
            self.closed.set()

    kept = Kept()
    chunks = _read(kept)
    assert list(chunks) == [b"x"]
    assert kept.closed.wait(5)

    chunks.close()  # type: ignore[attr-defined]

    kept.far.sendall(b"still here")
    assert kept.near.recv(100) == b"still here"
    for end in (kept.near, kept.far):
        end.close()


def test_read_raises_what_opening_raises() -> None:
    def fail(_: object) -> SocketBody:
        raise LookupError

    with pytest.raises(LookupError):
        list(read(fail, first_byte=60, idle=60))


def test_read_yields_what_came_before_an_error() -> None:
    class Failing(SocketBody):
        def chunks(self) -> Iterator[bytes]:
            yield b"x"
            raise LookupError

    failing = Failing()
    chunks = _read(failing)

    assert next(chunks) == b"x"
    with pytest.raises(LookupError):
        next(chunks)
    failing.far.close()


def test_what_can_be_waited_for_is_read_in_the_takers_thread() -> None:
    body = WaitingBody()
    body.far.sendall(b"a" * 5000)
    body.far.close()

    assert b"".join(_read(body)) == b"a" * 5000
    assert body.readers == {threading.current_thread().name}

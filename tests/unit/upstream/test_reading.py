"""Reading an upstream without being held up by it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from app.errors import ServerStopping
from app.upstream import reading, threaded
from app.upstream.limits import Lines, TooMuch, bounded
from app.upstream.reading import Opening, Register, SilentUpstream, read, read_all, within
from app.upstream.threaded import ThreadedBody


class PolledBody:
    """A body that is what the other end of a socket pair sends."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.closed = threading.Event()
        self.readers: set[str] = set()

    def receive(self) -> bytes | None:
        self.readers.add(threading.current_thread().name)
        self.near.settimeout(0.01)
        try:
            return self.near.recv(1000) or None
        except TimeoutError:
            return b""

    def close(self) -> None:
        self.near.close()
        self.closed.set()


class SocketBody(PolledBody):
    """A body that a thread has to read."""

    def __init__(self) -> None:
        super().__init__()
        self._threaded = ThreadedBody(self.chunks(), self.near, self.close_connection)

    def chunks(self) -> Iterator[bytes]:
        while data := self.near.recv(1000):
            yield data

    def close_connection(self) -> None:
        super().close()

    def receive(self) -> bytes | None:
        return self._threaded.receive()

    def close(self) -> None:
        self._threaded.close()


@pytest.fixture(params=[PolledBody, SocketBody])
def body(request: pytest.FixtureRequest) -> Iterator[PolledBody]:
    body = request.param()
    yield body
    body.near.close()
    body.far.close()


def _read(body: PolledBody, seconds: float = 10) -> Iterator[bytes]:
    return read(lambda _: body, first_byte=seconds, idle=seconds)


def test_read_yields_all_bytes_in_order_and_closes(body: PolledBody) -> None:
    body.far.sendall(b"a" * 5000)
    body.far.close()

    assert b"".join(_read(body)) == b"a" * 5000
    assert body.closed.wait(5)


def test_read_gives_a_turn_while_the_upstream_is_silent(body: PolledBody) -> None:
    chunks = _read(body)

    assert next(chunks) == b""
    body.far.sendall(b"x")
    assert next(data for data in chunks if data) == b"x"


def test_read_of_a_silent_upstream_ends_after_the_limit_and_hangs_up(body: PolledBody) -> None:
    chunks = read(lambda _: body, first_byte=0.1, idle=60)

    with pytest.raises(SilentUpstream):
        list(chunks)

    assert body.far.recv(1) == b""  # hung up


def test_read_limits_the_silence_between_bytes(body: PolledBody) -> None:
    body.far.sendall(b"x")
    chunks = read(lambda _: body, first_byte=60, idle=0.1)

    assert next(chunks) == b"x"
    with pytest.raises(SilentUpstream):
        list(chunks)


def test_read_ends_with_the_process_and_hangs_up(body: PolledBody, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(reading, "stopping", stopping)
    body.far.sendall(b"x")
    chunks = _read(body)
    assert next(chunks) == b"x"

    stopping.set()

    with pytest.raises(ServerStopping):
        next(chunks)
    assert body.far.recv(1) == b""


def test_close_hangs_up_at_once(body: PolledBody) -> None:
    body.far.sendall(b"x")
    chunks = _read(body)
    assert next(chunks) == b"x"

    chunks.close()  # type: ignore[attr-defined]

    assert body.far.recv(1) == b""
    assert body.closed.wait(5)


def test_close_before_the_upstream_answered_closes_it_when_it_does(body: PolledBody) -> None:
    may_open = threading.Event()

    def open_body(_: object) -> PolledBody:
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

        def close_connection(self) -> None:  # back to a pool: it stays open
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


def test_body_that_can_be_polled_is_read_in_the_takers_thread() -> None:
    body = PolledBody()
    body.far.sendall(b"a" * 5000)
    body.far.close()

    assert b"".join(_read(body)) == b"a" * 5000
    assert body.readers == {threading.current_thread().name}


def test_read_counts_only_progress_where_it_is_told_of_it(body: PolledBody) -> None:
    body.far.sendall(b": comment")
    chunks = read(lambda _: body, first_byte=-1, idle=60, progress=lambda: 0)

    with pytest.raises(SilentUpstream):
        list(chunks)


def test_read_waits_again_after_progress(body: PolledBody) -> None:
    body.far.sendall(b"event")
    body.far.close()
    found: list[bytes] = []

    for data in read(lambda _: body, first_byte=60, idle=60, progress=lambda: len(found)):
        found.append(data)

    assert b"".join(found) == b"event"


def test_read_all_yields_the_whole_in_the_end(body: PolledBody) -> None:
    body.far.sendall(b"a" * 5000)
    body.far.close()

    *turns, whole = read_all(lambda _: body, limit=10)

    assert not any(turns)
    assert whole == b"a" * 5000


def test_read_all_ends_after_the_limit_though_bytes_come(body: PolledBody) -> None:
    body.far.sendall(b"x")

    with pytest.raises(SilentUpstream):
        list(read_all(lambda _: body, limit=-1))


def test_read_all_of_too_much_is_an_error(body: PolledBody) -> None:
    body.far.sendall(b"a" * 11)

    with pytest.raises(TooMuch):
        list(read_all(lambda _: body, limit=60, most=10))


def test_bounded_body_gives_as_much_as_it_may() -> None:
    reads: list[bytes | None] = [b"abc", b"", b"de", None]
    take = bounded(lambda: reads.pop(0), 5)

    assert [take(), take(), take(), take()] == [b"abc", b"", b"de", None]


def test_bounded_body_with_a_byte_too_many_is_an_error() -> None:
    take = bounded(lambda: b"abc", 5)

    assert take() == b"abc"
    with pytest.raises(TooMuch, match="more than 5 bytes"):
        take()


def test_lines_are_whole_wherever_the_stream_is_cut() -> None:
    lines = Lines()

    found = [line for part in (b"a", b"b\nc\n\xe2", b"\x80\xa8d\n", b"e") for line in lines.feed(part)]

    assert found == [b"ab", b"c", "\u2028d".encode()]
    assert lines.end() == b"e"


def test_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.upstream.limits.LINE_LIMIT", 10)
    lines = Lines()
    lines.feed(b"a" * 20 + b"\n")

    with pytest.raises(TooMuch, match="a line of it has more than 10 bytes"):
        lines.feed(b"a" * 11)


def test_within_gives_what_the_work_returns() -> None:
    assert within(5, lambda _: b"") == b""


def test_within_hangs_up_on_work_that_takes_too_long() -> None:
    near, far = socket.socketpair()
    with near, far:

        def work(register: Register) -> bytes:
            register(near)
            return near.recv(1)

        with pytest.raises(SilentUpstream):
            within(0.1, work)

        far.settimeout(5)
        assert far.recv(1) == b""


def test_within_leaves_a_connection_alone_that_serves_another_request_by_now() -> None:
    near, far = socket.socketpair()
    is_free, go_on = threading.Event(), threading.Event()

    def work(register: Register) -> None:
        register(near)
        register(None)
        is_free.set()
        go_on.wait(5)

    with near, far:
        opening = Opening(work)
        assert is_free.wait(5)

        opening.close()

        far.sendall(b"x")
        assert near.recv(1) == b"x"
        go_on.set()


def test_time_of_an_upload_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(reading, "TICK", 0.01)
    has_turned = threading.Event()

    def work(register: Register) -> str:
        clock.now = 100.0  # the request is being sent
        assert has_turned.wait(5)
        register(None)
        return "answer"

    turns = iter(range(2))

    def wait(opening: Opening[str], real: object = Opening.wait) -> str | None:
        result: str | None = real(opening)  # type: ignore[operator]
        if next(turns, None) is None:
            has_turned.set()
        return result

    monkeypatch.setattr(Opening, "wait", wait)

    assert within(5, work, uploads=True) == "answer"


def test_close_hangs_up_on_an_upstream_that_has_not_answered() -> None:
    near, far = socket.socketpair()
    with near, far:

        def open_body(register: Register) -> PolledBody:
            register(near)
            near.recv(1)
            raise LookupError

        opening = Opening(open_body)
        opening.close()

        far.settimeout(5)
        assert far.recv(1) == b""


def test_close_after_opening_leaves_the_connection_alone() -> None:
    body = PolledBody()

    def open_body(register: Register) -> PolledBody:
        register(body.near)
        return body

    opening = Opening(open_body)
    assert opening.wait() is body

    opening.close()

    body.far.sendall(b"x")
    assert body.receive() == b"x"
    body.close()
    body.far.close()


def test_body_that_nobody_waited_for_is_closed() -> None:
    body = PolledBody()
    opened = threading.Event()

    def open_body(_: Register) -> PolledBody:
        opened.set()
        return body

    opening = Opening(open_body, lambda body: body.close())
    assert opened.wait(5)
    opening.close()

    assert body.closed.wait(5)
    body.far.close()


def test_threaded_body_waits_while_the_taker_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "_BACKLOG", 2)
    is_behind, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def wait(_: float) -> None:
        is_behind.set()
        go_on.wait(5)

    def chunks() -> Iterator[bytes]:
        for number in range(4):
            made.append(number)
            yield b"x"

    monkeypatch.setattr(threaded, "time", SimpleNamespace(sleep=wait))
    body = ThreadedBody(chunks(), None, lambda: None)
    first = body.receive()

    assert is_behind.wait(5)
    assert len(made) <= 3 + len(first or b"")
    go_on.set()
    assert (first or b"") + b"".join(iter(body.receive, None)) == b"xxxx"


def test_threaded_body_that_was_not_read_is_closed_without_a_thread() -> None:
    closed: list[str] = []
    body = ThreadedBody(iter(()), None, lambda: closed.append(threading.current_thread().name))

    body.close()

    assert closed == [threading.current_thread().name]


def test_threaded_body_is_closed_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    closed = threading.Event()
    body = ThreadedBody(iter(()), None, closed.set)
    monkeypatch.setattr(reading.threads, "run", fail)

    with pytest.raises(RuntimeError):
        body.receive()
    body.close()

    assert closed.is_set()


def test_time_that_the_taker_takes_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    body = PolledBody()
    chunks = read(lambda _: body, first_byte=5, idle=5)
    body.far.sendall(b"a")
    first = next(chunk for chunk in chunks if chunk)

    silent = next(chunks)
    clock.now = 60.0  # spent by the taker, while more came
    body.far.sendall(b"b")
    second = next(chunks)
    chunks.close()
    body.far.close()

    assert (first, silent, second) == (b"a", b"", b"b")

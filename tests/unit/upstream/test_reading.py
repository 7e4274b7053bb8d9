"""Reading an upstream without being held up by it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from app.errors import ServerStopping
from app.upstream import reading, threaded
from app.upstream.limits import Lines, TooMuch, bounded
from app.upstream.reading import Chunks, Opening, SilentUpstream, read, read_all
from app.upstream.threaded import InThread, ThreadedBody, announce, in_thread, open_in_thread, within


class Upstream:
    """Sends an answer over a socket pair, which is polled."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.closed = threading.Event()
        self.readers: set[str] = set()

    def opening(self) -> Opening:
        yield from ()
        return self

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


class BlockingUpstream(Upstream):
    """Sends an answer that a thread has to read."""

    def opening(self) -> Opening:
        return open_in_thread(self.parts)

    def parts(self) -> Chunks:
        try:
            announce(self.near)
            yield from self.data()
            announce(None)
        finally:
            self.close()

    def data(self) -> Iterator[bytes]:
        while data := self.near.recv(1000):
            yield data


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "TICK", 0.01)


@pytest.fixture(params=[Upstream, BlockingUpstream])
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    upstream = request.param()
    yield upstream
    upstream.near.close()
    upstream.far.close()


def _read(upstream: Upstream, seconds: float = 10) -> Chunks:
    return read(upstream.opening(), first_byte=seconds, idle=seconds)


def test_read_yields_all_bytes_in_order_and_closes(upstream: Upstream) -> None:
    upstream.far.sendall(b"a" * 5000)
    upstream.far.close()

    assert b"".join(_read(upstream)) == b"a" * 5000
    assert upstream.closed.wait(5)


def test_read_gives_a_turn_while_the_upstream_is_silent(upstream: Upstream) -> None:
    chunks = _read(upstream)

    assert next(chunks) == b""
    upstream.far.sendall(b"x")
    assert next(data for data in chunks if data) == b"x"


def test_read_of_a_silent_upstream_ends_after_the_limit_and_hangs_up(upstream: Upstream) -> None:
    chunks = read(upstream.opening(), first_byte=0.1, idle=60)

    with pytest.raises(SilentUpstream):
        list(chunks)

    assert upstream.far.recv(1) == b""  # hung up


def test_read_limits_the_silence_between_bytes(upstream: Upstream) -> None:
    upstream.far.sendall(b"x")
    chunks = read(upstream.opening(), first_byte=60, idle=0.1)

    assert next(chunks) == b"x"
    with pytest.raises(SilentUpstream):
        list(chunks)


def test_read_ends_with_the_process_and_hangs_up(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(reading, "stopping", stopping)
    upstream.far.sendall(b"x")
    chunks = _read(upstream)
    assert next(chunks) == b"x"

    stopping.set()

    with pytest.raises(ServerStopping):
        next(chunks)
    assert upstream.far.recv(1) == b""


def test_close_hangs_up_at_once(upstream: Upstream) -> None:
    upstream.far.sendall(b"x")
    chunks = _read(upstream)
    assert next(chunks) == b"x"

    chunks.close()

    assert upstream.far.recv(1) == b""
    assert upstream.closed.wait(5)


def test_read_counts_only_progress_where_it_is_told_of_it(upstream: Upstream) -> None:
    upstream.far.sendall(b": comment")
    chunks = read(upstream.opening(), first_byte=-1, idle=60, progress=lambda: 0)

    with pytest.raises(SilentUpstream):
        list(chunks)


def test_read_waits_again_after_progress(upstream: Upstream) -> None:
    upstream.far.sendall(b"event")
    upstream.far.close()
    found: list[bytes] = []

    for data in read(upstream.opening(), first_byte=60, idle=60, progress=lambda: len(found)):
        found.append(data)

    assert b"".join(found) == b"event"


def test_read_all_yields_the_whole_in_the_end(upstream: Upstream) -> None:
    upstream.far.sendall(b"a" * 5000)
    upstream.far.close()

    *turns, whole = read_all(upstream.opening(), limit=10)

    assert not any(turns)
    assert whole == b"a" * 5000


def test_read_all_ends_after_the_limit_though_bytes_come(upstream: Upstream) -> None:
    upstream.far.sendall(b"x")

    with pytest.raises(SilentUpstream):
        list(read_all(upstream.opening(), limit=-1))


def test_read_all_of_too_much_is_an_error(upstream: Upstream) -> None:
    upstream.far.sendall(b"a" * 11)

    with pytest.raises(TooMuch):
        list(read_all(upstream.opening(), limit=60, most=10))


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


def test_thread_waits_while_the_taker_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "_BACKLOG", 2)
    is_behind, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def wait(_: float) -> None:
        is_behind.set()
        go_on.wait(5)

    def work() -> Chunks:
        for number in range(4):
            made.append(number)
            yield b"x"

    monkeypatch.setattr(threaded, "time", SimpleNamespace(sleep=wait))
    body = ThreadedBody(work)

    assert is_behind.wait(5)
    assert len(made) == 3
    go_on.set()
    assert b"".join(iter(body.receive, None)) == b"xxxx"


def test_answer_that_was_not_read_is_never_asked_for() -> None:
    asked: list[int] = []

    def work() -> Chunks:
        asked.append(1)
        yield b""

    open_in_thread(work).close()

    assert asked == []


def test_time_that_the_taker_takes_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    upstream = Upstream()
    chunks = read(upstream.opening(), first_byte=5, idle=5)
    upstream.far.sendall(b"a")
    first = next(chunk for chunk in chunks if chunk)

    silent = next(chunks)
    clock.now = 60.0  # spent by the taker, while more came
    upstream.far.sendall(b"b")
    second = next(chunks)
    chunks.close()
    upstream.far.close()

    assert (first, silent, second) == (b"a", b"", b"b")


def test_answer_that_can_be_polled_is_read_in_the_takers_thread() -> None:
    upstream = Upstream()
    upstream.far.sendall(b"a" * 5000)
    upstream.far.close()

    assert b"".join(_read(upstream)) == b"a" * 5000
    assert upstream.readers == {threading.current_thread().name}


def test_close_before_the_upstream_answered_ends_the_work_when_it_does() -> None:
    may_open = threading.Event()

    class Slow(BlockingUpstream):
        def parts(self) -> Chunks:
            may_open.wait(5)
            return super().parts()

    slow = Slow()
    slow.far.sendall(b"x")
    chunks = _read(slow)
    assert next(chunks) == b""

    chunks.close()
    may_open.set()

    assert slow.closed.wait(5)
    slow.far.close()


def test_close_after_the_end_leaves_the_connection_alone() -> None:
    class Kept(BlockingUpstream):
        def data(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:  # back to a pool: it stays open
            self.closed.set()

    kept = Kept()
    chunks = _read(kept)
    assert b"".join(chunks) == b"x"
    assert kept.closed.wait(5)

    chunks.close()

    kept.far.sendall(b"still here")
    assert kept.near.recv(100) == b"still here"
    for end in (kept.near, kept.far):
        end.close()


def test_read_yields_what_came_before_an_error() -> None:
    class Failing(BlockingUpstream):
        def data(self) -> Iterator[bytes]:
            yield b"x"
            raise LookupError

    failing = Failing()
    chunks = _read(failing)

    assert next(data for data in chunks if data) == b"x"
    with pytest.raises(LookupError):
        list(chunks)
    failing.far.close()


def test_bounded_body_gives_as_much_as_it_may() -> None:
    reads: list[bytes | None] = [b"abc", b"", b"de", None]
    take = bounded(lambda: reads.pop(0), 5)

    assert [take(), take(), take(), take()] == [b"abc", b"", b"de", None]


def test_bounded_body_with_a_byte_too_many_is_an_error() -> None:
    take = bounded(lambda: b"abc", 5)

    assert take() == b"abc"
    with pytest.raises(TooMuch, match="more than 5 bytes"):
        take()


def test_within_gives_what_the_work_returns() -> None:
    assert within(5, lambda: b"") == b""


def test_work_in_a_thread_gives_turns_and_then_its_result() -> None:
    go_on = threading.Event()
    work = in_thread(lambda: go_on.wait(60))

    assert next(work) == b""
    go_on.set()
    found: list[bool] = []

    def turns() -> Chunks:
        found.append((yield from work))

    assert not any(turns())
    assert found == [True]


def test_what_work_in_a_thread_raises_is_raised() -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        list(in_thread(fail))


def test_work_in_a_thread_ends_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(threaded, "stopping", stopping)
    work = in_thread(lambda: go_on.wait(60))
    assert next(work) == b""

    stopping.set()

    with pytest.raises(ServerStopping):
        next(work)
    go_on.set()


def test_within_hangs_up_on_work_that_takes_too_long() -> None:
    near, far = socket.socketpair()
    with near, far:

        def work() -> bytes:
            announce(near)
            return near.recv(1)

        with pytest.raises(SilentUpstream):
            within(0.1, work)

        far.settimeout(5)
        assert far.recv(1) == b""


def test_connection_that_serves_another_request_by_now_is_left_alone() -> None:
    near, far = socket.socketpair()
    is_free, go_on = threading.Event(), threading.Event()

    def work() -> Generator[None, None, None]:
        announce(near)
        announce(None)
        is_free.set()
        go_on.wait(5)
        yield

    with near, far:
        running = InThread(work)
        assert is_free.wait(5)

        running.close()

        far.sendall(b"x")
        assert near.recv(1) == b"x"
        go_on.set()


def test_time_of_an_upload_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(threaded, "time", SimpleNamespace(monotonic=lambda: clock.now))
    has_turned = threading.Event()

    def work() -> str:
        clock.now = 100.0  # the request is being sent
        assert has_turned.wait(5)
        announce(None)
        return "answer"

    turns = iter(range(2))

    def take(running: InThread[str], real: Callable[[InThread[str]], list[str] | None] = InThread.take):
        result = real(running)
        if next(turns, None) is None:
            has_turned.set()
        return result

    monkeypatch.setattr(InThread, "take", take)

    assert within(5, work, uploads=True) == "answer"


def test_close_hangs_up_on_an_upstream_that_has_not_answered() -> None:
    near, far = socket.socketpair()
    with near, far:

        def work() -> Chunks:
            announce(near)
            yield near.recv(1)

        with closing(InThread(work)):
            pass

        far.settimeout(5)
        assert far.recv(1) == b""

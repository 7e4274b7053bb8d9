"""Open an upstream's answer and read it without being held up by it.

A service that passes on a stream has other work while the upstream is silent: it keeps the client's
connection alive, notices that the client left, and gives up in time. So a thread opens the answer, whose
connection is announced before the upstream has answered, and reading waits for one tick at most. To give up
is to shut the connection down, which ends the wait of the thread, and tells the upstream to stop its work.
An answer whose connection cannot be polled is read by a thread too: :class:`ThreadedBody`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from app.threads import Threads

TICK = 0.5
"""Seconds that reading waits for a silent upstream."""

SIZE_LIMIT = 64_000_000
"""Bytes that no answer or event has."""

_BACKLOG = 1000  # reads that may wait for the taker
_ROOM_POLL = 0.01  # seconds

threads = Threads("upstream reader")
"""Those that open answers, and read those that cannot be polled."""

_announcements = threading.local()

_T = TypeVar("_T")

Register = Callable[[socket.socket], None]
"""Is given the connection of a request whose answer is still awaited."""


class Body(Protocol):
    """An open answer."""

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end."""

    def close(self) -> None:
        """Give the connection back, or close it."""


OpenBody = Callable[[Register], Body]
"""Sends a request and returns its open answer."""


class SilentUpstream(Exception):
    """The upstream took too long."""


class TooMuch(Exception):
    """The answer is larger than any answer can be."""


@contextlib.contextmanager
def announcing(register: Register) -> Iterator[None]:
    """Give *register* the connection of each request that this thread sends in the block."""
    _announcements.register = register
    try:
        yield
    finally:
        _announcements.register = None


def announce(connection: socket.socket) -> None:
    """Make *connection* known to :func:`announcing`; the HTTP library calls this when it sends a request."""
    register: Register | None = getattr(_announcements, "register", None)
    if register is not None:
        register(connection)


def hang_up(connection: socket.socket) -> None:
    """End *connection* for a thread that reads from it: closing the socket would not wake that thread."""
    with contextlib.suppress(OSError):  # the other side has closed it already
        # The plain socket's method: the one of TLS is not safe while another thread reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Opening:
    """A thread that opens an answer; its result is the body, or the exception that opening raised."""

    def __init__(self, open_body: OpenBody) -> None:
        self._open_body = open_body
        self._result: SimpleQueue[Body | BaseException] = SimpleQueue()
        self._connection: socket.socket | None = None
        self._is_over = False  # the connection belongs to the body now, and later to another request
        self._is_closed = False
        self._lock = threading.Lock()
        threads.run(self._run)

    def wait(self) -> Body | None:
        """Return the body, which the caller closes; None when the upstream did not answer within a tick.

        :raises Exception: what opening raised
        """
        try:
            result = self._result.get(timeout=TICK)
        except Empty:
            return None
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Hang up on an upstream that has not answered; close a body that :meth:`wait` did not return."""
        with self._lock:
            self._is_closed = True
            if not self._is_over and self._connection is not None:
                hang_up(self._connection)
        with contextlib.suppress(Empty):
            self._close_body(self._result.get_nowait())

    def _register(self, connection: socket.socket) -> None:
        with self._lock:
            self._connection = connection
            if self._is_closed:
                hang_up(connection)

    def _run(self) -> None:
        result: Body | BaseException
        try:
            result = self._open_body(self._register)
        except BaseException as exc:  # raised again by wait()  # noqa: BLE001
            result = exc
        with self._lock:
            self._is_over = True
            is_wanted = not self._is_closed
            if is_wanted:
                self._result.put(result)
        if not is_wanted:
            self._close_body(result)

    @staticmethod
    def _close_body(result: Body | BaseException) -> None:
        if not isinstance(result, BaseException):
            result.close()


def read(
    open_body: OpenBody, *, first_byte: float, idle: float, progress: Callable[[], int] | None = None
) -> Generator[bytes, None, None]:
    """Open an answer and yield its bytes, all that came at a time; ``b""`` in each silent tick.

    Closing the generator hangs up on the upstream.

    :param first_byte: seconds that the first progress may take
    :param idle: seconds that any further progress may take
    :param progress: returns how many events the caller has found in the bytes so far, as comments alone are
        no progress; where it is None, each byte is progress
    :raises SilentUpstream: when progress takes longer
    :raises Exception: what opening or reading raises
    """
    opening = Opening(open_body)
    body: Body | None = None
    seen = 0
    deadline = time.monotonic() + first_byte
    try:
        while True:
            body = body or opening.wait()
            data = body.receive() if body else b""
            if data is None:
                return
            yield data
            found = progress() if progress else seen + len(data)
            if found > seen:
                seen, deadline = found, time.monotonic() + idle
            elif time.monotonic() > deadline:
                raise SilentUpstream
    finally:
        (body or opening).close()


def read_all(open_body: OpenBody, *, limit: float) -> Generator[bytes, None, None]:
    """Open an answer and yield all of it at the end; ``b""`` in each silent tick until then.

    :param limit: seconds that all of it may take
    :raises SilentUpstream: when it takes longer
    :raises TooMuch: when it is larger than :data:`SIZE_LIMIT`
    """
    parts: list[bytes] = []
    size = 0
    # No part of the answer counts as progress, so that the first deadline is the one of the whole.
    with closing(read(open_body, first_byte=limit, idle=limit, progress=lambda: 0)) as chunks:
        for data in chunks:
            if not data:
                yield b""
            parts.append(data)
            size += len(data)
            if size > SIZE_LIMIT:
                raise TooMuch
    yield b"".join(parts)


def let_end(chunks: Generator[bytes, None, None]) -> None:
    """Give a complete answer one tick to end its connection properly, so that it can be used again.

    The answer is already there, so that bytes and errors no longer matter.
    """
    with contextlib.suppress(Exception):
        next(chunks, None)


def take(queue: SimpleQueue[_T]) -> list[_T]:
    """Return all items of *queue*; wait for one tick when it is empty."""
    items: list[_T] = []
    try:
        items.append(queue.get(timeout=TICK))
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items


class _End(Exception):
    """All of an answer was read."""


class ThreadedBody:
    """A body that a thread reads; see :class:`~app.upstream.reading.Body`.

    The thread starts with the first :meth:`receive`.

    :param chunks: yields what each read gave
    :param connection: to hang up on; None where it is not known
    :param close: gives the connection back, or closes it
    """

    def __init__(
        self, chunks: Iterable[bytes], connection: socket.socket | None, close: Callable[[], None]
    ) -> None:
        self._chunks = chunks
        self._connection = connection
        self._close = close
        self._items: SimpleQueue[bytes | BaseException] = SimpleQueue()  # the exception is the last item
        self._end: BaseException | None = None
        self._is_started = False
        self._is_over = False  # the connection may serve another request
        self._is_closed = False
        self._lock = threading.Lock()

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end.

        :raises Exception: what reading raised
        """
        if not self._is_started:
            self._is_started = True
            threads.run(self._run)
        if self._end is None:
            items = take(self._items)
            if items and isinstance(items[-1], BaseException):
                self._end = items[-1]
            data = b"".join(item for item in items if isinstance(item, bytes))
            if data or self._end is None:
                return data
        if isinstance(self._end, _End):
            return None
        raise self._end

    def close(self) -> None:
        """Hang up, unless all of the answer was read."""
        with self._lock:
            self._is_closed = True
            if self._is_started and not self._is_over and self._connection is not None:
                hang_up(self._connection)
        if not self._is_started:
            self._close()

    def _run(self) -> None:
        end: BaseException = _End()
        try:
            self._read()
        except BaseException as exc:  # raised again by receive()  # noqa: BLE001
            end = exc
        self._items.put(end)

    def _read(self) -> None:
        try:
            for chunk in self._chunks:
                while self._items.qsize() >= _BACKLOG and not self._is_closed:
                    time.sleep(_ROOM_POLL)  # the client is slower than the upstream: no haste
                self._items.put(chunk)
                if self._is_closed:
                    break
        finally:
            with self._lock:
                self._is_over = True
            self._close()

"""Open an upstream's answer and read it without blocking for longer than one tick.

A service that passes on a stream has work to do while the upstream is silent: it keeps the client's
connection alive, notices when the client leaves, and enforces timeouts. So a thread opens the answer, and
each read waits for one tick at most. To give up, the service shuts the connection down, which is announced
before the upstream answers. If the answer cannot be polled, a thread reads it too: :class:`ThreadedBody`.
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

from app.errors import ServerStopping
from app.stopping import stopping
from app.threads import Threads

TICK = 0.5  # seconds that one read waits for a silent upstream
SIZE_LIMIT = 64_000_000  # bytes of an answer or an event; a larger one is an error

_BACKLOG = 1000  # chunks that may wait in the queue until receive() takes them
_ROOM_POLL = 0.01  # seconds

threads = Threads("upstream reader")
"""The threads that open answers, and that read answers whose connection cannot be polled."""

_announcements = threading.local()

_T = TypeVar("_T")

Register = Callable[[socket.socket], None]
"""Is called with the connection of a request that was sent and is not answered yet."""


class Body(Protocol):
    """An open answer."""

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end."""

    def close(self) -> None:
        """Return the connection to its pool, or close it."""


OpenBody = Callable[[Register], Body]
"""Sends a request and returns its open answer."""


class SilentUpstream(Exception):
    """The upstream sent nothing, or no progress, within its timeout."""


class TooMuch(Exception):
    """The answer is larger than :data:`SIZE_LIMIT`."""


@contextlib.contextmanager
def announcing(register: Register) -> Iterator[None]:
    """Call *register* with the connection of each request that this thread sends in the block."""
    _announcements.register = register
    try:
        yield
    finally:
        _announcements.register = None


def announce(connection: socket.socket) -> None:
    """Pass *connection* to the current :func:`announcing`; called by the transports for each request."""
    register: Register | None = getattr(_announcements, "register", None)
    if register is not None:
        register(connection)


def hang_up(connection: socket.socket) -> None:
    """Shut *connection* down, which wakes a thread that reads from it; closing the socket would not."""
    with contextlib.suppress(OSError):  # the server has closed it already
        # The plain socket's method: that of a TLS socket is not safe while another thread reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Opening:
    """Opens an answer in a thread."""

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
        """Shut down a connection without an answer; close a body that :meth:`wait` did not return."""
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
    """Open an answer and yield its bytes as they come; ``b""`` after each tick without bytes.

    Closing the generator closes the connection to the upstream.

    :param first_byte: seconds until the first progress
    :param idle: seconds between one progress and the next
    :param progress: counts the events found so far: comments are no progress; None to count bytes
    :raises SilentUpstream: when there is no progress in time
    :raises ServerStopping: when this process is being stopped
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
            if stopping.is_set():
                raise ServerStopping
            now = time.monotonic()  # before the yield: the caller may be slow, while bytes arrive
            yield data
            found = progress() if progress else seen + len(data)
            if found > seen:
                seen, deadline = found, time.monotonic() + idle
            elif now > deadline:
                raise SilentUpstream
    finally:
        (body or opening).close()


def read_all(open_body: OpenBody, *, limit: float) -> Generator[bytes, None, None]:
    """Open an answer and yield the whole body as the last item; ``b""`` after each tick without bytes.

    :param limit: seconds that the whole answer may take
    :raises SilentUpstream: when it takes longer
    :raises TooMuch: when it is larger than :data:`SIZE_LIMIT`
    """
    parts: list[bytes] = []
    size = 0
    # Nothing counts as progress, so that the first deadline holds for the whole answer.
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
    """Read for one more tick after a complete answer, so that its connection can be used again.

    A stream's last event often comes before the end of the body. Errors no longer matter.
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
    """The whole answer was read."""


class ThreadedBody:
    """A :class:`Body` that a thread reads, for a connection that cannot be polled.

    The thread starts with the first :meth:`receive`.

    :param chunks: yields the bytes of the body; each step may block
    :param connection: is shut down by :meth:`close`; None if it is not known
    :param close: returns the connection to its pool, or closes it
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
        self._is_over = False  # then the connection may serve another request already
        self._is_closed = False
        self._lock = threading.Lock()

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end.

        :raises Exception: what reading raised
        """
        if not self._is_started:
            threads.run(self._run)  # when no thread can be started, close() has to close the answer itself
            self._is_started = True
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
        """Shut the connection down, unless the whole answer was read."""
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
                    time.sleep(_ROOM_POLL)  # the client reads more slowly than the upstream sends
                self._items.put(chunk)
                if self._is_closed:
                    break
        finally:
            with self._lock:
                self._is_over = True
            self._close()

"""Open an upstream's answer and read it without blocking for longer than one tick.

A service that passes on a stream has work to do while the upstream is silent: it keeps the client's
connection alive, notices when the client leaves, and enforces timeouts. So a thread opens the answer, and
each read waits for one tick at most. To give up, the service shuts the connection down, which is announced
before the upstream answers. If the answer cannot be polled, a thread reads it too:
:class:`~app.upstream.threaded.ThreadedBody`.

Everything that is read has a limit, in bytes and in seconds: :func:`within` and :func:`read_all` limit the
seconds of a whole answer, :func:`read` those without progress; :mod:`app.upstream.limits` limits the bytes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from app.errors import ServerStopping
from app.stopping import stopping
from app.threads import Threads
from app.upstream.limits import TooMuch

TICK = 0.5
"""Seconds that one read waits for a silent upstream."""

threads = Threads("upstream reader")
"""The threads that open answers, and that read answers whose connection cannot be polled."""

_announcements = threading.local()

_T = TypeVar("_T")

Register = Callable[[socket.socket | None], None]
"""Is called with the connection of a request that was sent; with None when the connection is free again."""


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


@contextlib.contextmanager
def announcing(register: Register) -> Iterator[None]:
    """Call *register* with the connection of each request that this thread sends in the block."""
    _announcements.register = register
    try:
        yield
    finally:
        _announcements.register = None


def announce(connection: socket.socket | None) -> None:
    """Pass *connection* to the current :func:`announcing`; called by the transports for each request.

    :param connection: None when the answer was read, and the connection may serve another request
    """
    register: Register | None = getattr(_announcements, "register", None)
    if register is not None:
        register(connection)


def hang_up(connection: socket.socket) -> None:
    """Shut *connection* down, which wakes a thread that reads from it; closing the socket would not."""
    with contextlib.suppress(OSError):  # the server has closed it already
        # The plain socket's method: that of a TLS socket is not safe while another thread reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Opening(Generic[_T]):
    """Opens an answer in a thread.

    :param discard: is called with an answer that nobody waits for any more
    """

    def __init__(
        self, work: Callable[[Register], _T], discard: Callable[[_T], None] = lambda _: None
    ) -> None:
        self._work = work
        self._discard = discard
        self._result: SimpleQueue[_T | BaseException] = SimpleQueue()
        self._connection: socket.socket | None = None
        self._is_over = False  # the connection belongs to the body now, and later to another request
        self._is_closed = False
        self._lock = threading.Lock()
        self.is_sent = False
        threads.run(self._run)

    def wait(self) -> _T | None:
        """Return the answer, which the caller closes; None when it did not come within a tick.

        :raises ServerStopping: when this process is being stopped
        :raises Exception: what opening raised
        """
        try:
            result = self._result.get(timeout=TICK)
        except Empty:
            if stopping.is_set():
                raise ServerStopping from None
            return None
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Shut down a connection without an answer; discard an answer that :meth:`wait` did not return."""
        with self._lock:
            self._is_closed = True
            if not self._is_over and self._connection is not None:
                hang_up(self._connection)
        with contextlib.suppress(Empty):
            self._drop(self._result.get_nowait())

    def _register(self, connection: socket.socket | None) -> None:
        with self._lock:
            self.is_sent = True
            self._connection = connection
            if self._is_closed and connection is not None:
                hang_up(connection)

    def _run(self) -> None:
        result: _T | BaseException
        try:
            result = self._work(self._register)
        except BaseException as exc:  # raised again by wait()  # noqa: BLE001
            result = exc
        with self._lock:
            self._is_over = True
            is_wanted = not self._is_closed
            if is_wanted:
                self._result.put(result)
        if not is_wanted:
            self._drop(result)

    def _drop(self, result: _T | BaseException) -> None:
        if not isinstance(result, BaseException):
            self._discard(result)


def within(seconds: float, work: Callable[[Register], _T], *, uploads: bool = False) -> _T:
    """Send a request and read its answer in a thread; hang up when that takes longer than *seconds*.

    :param work: sends the request, and returns what it reads
    :param uploads: count the seconds from the moment when the request was sent: it may be large
    :raises SilentUpstream: when it takes longer
    :raises ServerStopping: when this process is being stopped
    :raises Exception: what *work* raises
    """
    opening = Opening(work)
    deadline = time.monotonic() + seconds
    try:
        while (result := opening.wait()) is None:
            if stopping.is_set():
                raise ServerStopping
            if uploads and not opening.is_sent:
                deadline = time.monotonic() + seconds
            elif time.monotonic() > deadline:
                raise SilentUpstream
        return result
    finally:
        opening.close()


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
    opening = Opening(open_body, lambda body: body.close())
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


def read_all(open_body: OpenBody, *, limit: float, most: int | None = None) -> Generator[bytes, None, None]:
    """Open an answer and yield the whole body as the last item; ``b""`` after each tick without bytes.

    :param limit: seconds that the whole answer may take
    :param most: bytes that it may have; None for the limit of all answers
    :raises SilentUpstream: when it takes longer
    :raises TooMuch: when it is larger
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
            if most is not None and size > most:
                raise TooMuch(f"it has more than {most} bytes")
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

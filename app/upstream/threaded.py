"""Let a thread send a request and read its answer, where the connection cannot be polled.

To give up, the connection is shut down: it is announced before the upstream answers.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from app.errors import ServerStopping
from app.stopping import stopping
from app.threads import Threads
from app.upstream.reading import TICK, Opening, SilentUpstream, Ticks

_threads = Threads("upstream reader")

_BACKLOG = 1000  # items that may wait in the queue until take() takes them
_ROOM_POLL = 0.01  # seconds

_running = threading.local()

_T = TypeVar("_T")


def announce(connection: socket.socket | None) -> None:
    """Tell the :class:`InThread` of this thread which connection to shut down when it is closed.

    The transports call this for each request.

    :param connection: None when the answer was read, and the connection may serve another request
    """
    running: InThread[object] | None = getattr(_running, "current", None)
    if running is not None:
        running.register(connection)


class InThread(Generic[_T]):
    """Runs *work* in a thread, and passes on the items that it yields.

    :param work: sends a request and yields parts of its answer; each step may block
    """

    def __init__(self, work: Callable[[], Generator[_T, None, None]]) -> None:
        self._work = work
        self._items: SimpleQueue[_T | _End] = SimpleQueue()
        self._end: _End | None = None
        self._connection: socket.socket | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self.is_sent = False
        _threads.run(self._run)

    def take(self) -> list[_T] | None:
        """Return the items that came; an empty list when none came within a tick, None at the end.

        :raises Exception: what *work* raised
        """
        if self._end is None:
            items: list[_T] = []
            for item in take(self._items):
                if isinstance(item, _End):
                    self._end = item
                else:
                    items.append(item)
            if items or self._end is None:
                return items
        if self._end.error is not None:
            raise self._end.error
        return None

    def close(self) -> None:
        """End the work: shut its connection down, unless the whole answer was read."""
        with self._lock:
            self._is_closed = True
            _hang_up(self._connection)

    def register(self, connection: socket.socket | None) -> None:
        """Remember the connection of the request that was sent; see :func:`announce`."""
        with self._lock:
            self.is_sent = True
            self._connection = connection
            if self._is_closed:
                _hang_up(connection)

    def _run(self) -> None:
        _running.current = self
        error: BaseException | None = None
        try:
            with closing(self._work()) as items:
                for item in items:
                    self._put(item)
                    if self._is_closed:
                        break
        except BaseException as exc:  # raised again by take()  # noqa: BLE001
            error = exc
        finally:
            _running.current = None
            self.register(None)
        self._items.put(_End(error))

    def _put(self, item: _T) -> None:
        while self._items.qsize() >= _BACKLOG and not self._is_closed:
            time.sleep(_ROOM_POLL)  # the client reads more slowly than the upstream sends
        self._items.put(item)


class _End:
    """The last item of a queue: the work is over."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class ThreadedBody:
    """An answer that a thread reads.

    :param work: sends the request and yields the bytes of the answer; each step may block
    """

    def __init__(self, work: Callable[[], Generator[bytes, None, None]]) -> None:
        self._running = InThread(work)
        self._first: list[bytes] | None = []

    def begin(self) -> Ticks:
        """Wait for the first bytes.

        :raises Exception: what *work* raises
        """
        while not (items := self._running.take()):
            if items is None:
                break
            yield b""
        self._first = items

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end."""
        items = self._first or self._running.take()
        self._first = []
        return None if items is None else b"".join(items)

    def close(self) -> None:
        """Shut the connection down, unless the whole answer was read."""
        self._running.close()


def open_in_thread(work: Callable[[], Generator[bytes, None, None]]) -> Opening:
    """Send a request in a thread, and return its answer, which the thread reads.

    :param work: sends the request and yields the bytes of the answer; each step may block
    :raises Exception: what *work* raises before the first bytes
    """
    body = ThreadedBody(work)
    try:
        yield from body.begin()
    except BaseException:
        body.close()
        raise
    return body


def in_thread(
    work: Callable[[], _T], *, seconds: float = math.inf, uploads: bool = False
) -> Generator[bytes, None, _T]:
    """Run *work* in a thread, and return what it returns; yield ``b""`` in each tick until then.

    Its connection is shut down when it takes longer than *seconds*, or when the generator is closed.

    :param uploads: count the seconds from the moment when the request was sent: it may be large
    :raises SilentUpstream: when it takes longer
    :raises ServerStopping: when this process is being stopped
    :raises Exception: what *work* raises
    """
    running = InThread(lambda: _once(work))
    deadline = time.monotonic() + seconds
    try:
        while not (items := running.take()):
            if stopping.is_set():
                raise ServerStopping
            if uploads and not running.is_sent:
                deadline = time.monotonic() + seconds
            elif time.monotonic() > deadline:
                raise SilentUpstream
            yield b""
        return items[0]
    finally:
        running.close()


def within(seconds: float, work: Callable[[], _T], *, uploads: bool = False) -> _T:
    """Run *work* as :func:`in_thread` does, and wait for it."""
    waiting = in_thread(work, seconds=seconds, uploads=uploads)
    while True:
        try:
            next(waiting)
        except StopIteration as end:  # noqa: PERF203 - at most once in a tick
            result: _T = end.value
            return result


def take(queue: SimpleQueue[_T]) -> list[_T]:
    """Return all items of *queue*; wait for one tick when it is empty."""
    items: list[_T] = []
    try:
        items.append(queue.get(timeout=TICK))
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items


def _once(work: Callable[[], _T]) -> Generator[_T, None, None]:
    yield work()


def _hang_up(connection: socket.socket | None) -> None:
    """Shut *connection* down, which wakes a thread that reads from it; closing the socket would not."""
    if connection is not None:
        with contextlib.suppress(OSError):  # the server has closed it already
            # The plain socket's method: that of a TLS socket is not safe while another thread reads.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

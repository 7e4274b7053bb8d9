"""The body of an answer whose connection cannot be polled: a thread reads it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from app.upstream.reading import hang_up, take, threads

_BACKLOG = 1000  # chunks that may wait in the queue until receive() takes them
_ROOM_POLL = 0.01  # seconds


class _End(Exception):
    """The whole answer was read."""


class ThreadedBody:
    """A :class:`~app.upstream.reading.Body` that a thread reads, for a connection that cannot be polled.

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

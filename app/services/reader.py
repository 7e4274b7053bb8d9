"""Reading an upstream's answer without being held up by it.

Whoever relays a stream must be able to look up from a silent upstream: to keep the client's connection
alive, to notice that the client left, and to give up in time. So a thread reads, and the relay takes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from app.services.threads import Threads

TICK = 0.5
"""Seconds after which a silent upstream gives the taker a turn."""


SIZE_LIMIT = 64_000_000
"""Bytes that no answer or event has."""

_BACKLOG = 1000  # reads that may wait for the taker
_ROOM_POLL = 0.01  # seconds

_threads = Threads("upstream reader")


class Body(Protocol):
    """An open answer."""

    def chunks(self) -> Iterator[bytes]:
        """Yield what each read gave; the connection is not given back before :meth:`close`."""

    def connection(self) -> socket.socket | None:
        """Return the connection, to hang up on it from another thread."""

    def close(self) -> None:
        """Give the connection back, or close it."""


class SilentUpstream(Exception):
    """Nothing came for too long."""


class TooMuch(Exception):
    """More came than an answer can have."""


_T = TypeVar("_T")
_Item = bytes | BaseException | None  # None: the answer's end


Register = Callable[[socket.socket], None]
"""Makes a connection known while an answer is being opened."""


class _Reader:
    """Opens and reads an answer in a thread of its own."""

    def __init__(self, open_body: Callable[[Register], Body]) -> None:
        self.items: SimpleQueue[_Item] = SimpleQueue()
        self._open_body = open_body
        self._connection: socket.socket | None = None
        self._over = False  # the connection is no longer this answer's
        self._left = False  # nobody takes any more
        self._lock = threading.Lock()
        _threads.run(self._read)

    def hang_up(self) -> None:
        """End the opening or reading at once; nothing happens when it is over already."""
        with self._lock:
            self._left = True
            over, self._over = self._over, True
            if not over and self._connection is not None:
                _shut_down(self._connection)

    def _register(self, connection: socket.socket) -> None:
        with self._lock:
            self._connection = connection
            if self._over:
                _shut_down(connection)

    def _read(self) -> None:
        end: BaseException | None = None
        try:
            body = self._open_body(self._register)
        except BaseException as exc:  # raised again where the bytes are taken  # noqa: BLE001
            self._put(exc)
            return
        try:
            connection = body.connection()
            if connection is not None:
                self._register(connection)
            for chunk in body.chunks():
                self._put(chunk)
                if self._left:
                    break
        except BaseException as exc:  # as above  # noqa: BLE001
            end = exc
        finally:
            with self._lock:  # from here on the connection may serve another request
                self._over = True
            body.close()
        self._put(end)

    def _put(self, item: _Item) -> None:
        """Hand over *item*; wait while the taker is far behind, unless nobody takes any more."""
        while self.items.qsize() >= _BACKLOG and not self._left:
            time.sleep(_ROOM_POLL)  # the client is slower than the upstream: no haste
        self.items.put(item)


def read(
    open_body: Callable[[Register], Body], *, first_byte: float, idle: float
) -> Generator[bytes, None, None]:
    """Open an answer and yield its bytes, all that have come at a time; ``b""`` in each silent half second.

    Closing the generator hangs up on the upstream.

    :param first_byte: seconds that the first byte may take
    :param idle: seconds that any further one may take
    :raises SilentUpstream: when one takes longer
    :raises Exception: what opening or reading raises
    """
    reader = _Reader(open_body)
    deadline = time.monotonic() + first_byte
    try:
        while True:
            items = take(reader.items)
            data = b"".join(item for item in items if isinstance(item, bytes))
            now = time.monotonic()
            if data:
                deadline = now + idle
            elif now > deadline and not items:
                raise SilentUpstream
            if data or not items:
                yield data
            last = items[-1] if items else b""
            if last is None:
                return
            if isinstance(last, BaseException):
                raise last
    finally:
        reader.hang_up()


def read_events(
    open_body: Callable[[Register], Body], events: Callable[[], int], *, first_byte: float, idle: float
) -> Generator[bytes, None, None]:
    """Do as :func:`read`, as long as *events* come in time: comments alone are no answer.

    :param events: tells how many the taker has found in the bytes so far
    """
    deadline = time.monotonic() + first_byte
    seen = 0
    chunks = read(open_body, first_byte=first_byte, idle=max(idle, first_byte))
    try:
        for data in chunks:
            yield data
            found = events()
            if found > seen:
                seen, deadline = found, time.monotonic() + idle
            elif time.monotonic() > deadline:
                raise SilentUpstream
    finally:
        chunks.close()


def read_all(open_body: Callable[[Register], Body], *, limit: float) -> Generator[bytes, None, None]:
    """Open an answer and yield the whole of it in the end; ``b""`` in each half second until then.

    :param limit: seconds that all of it may take
    :raises SilentUpstream: when it takes longer
    :raises TooMuch: when it is larger than any answer can be
    """
    deadline = time.monotonic() + limit
    parts: list[bytes] = []
    size = 0
    chunks = read(open_body, first_byte=limit, idle=limit)
    try:
        for data in chunks:
            parts.append(data)
            size += len(data)
            if time.monotonic() > deadline:
                raise SilentUpstream
            if size > SIZE_LIMIT:
                raise TooMuch
            if not data:
                yield b""
    finally:
        chunks.close()
    yield b"".join(parts)


def take(queue: SimpleQueue[_T]) -> list[_T]:
    """Return everything that is there; wait for one tick when that is nothing."""
    items: list[_T] = []
    try:
        items.append(queue.get(timeout=TICK))
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items


def _shut_down(connection: socket.socket) -> None:
    """Wake who reads: closing a socket does not, shutting it down does."""
    with contextlib.suppress(OSError):  # closed by the other side already
        # The plain socket's method: TLS has one of its own that is not safe during a read.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)

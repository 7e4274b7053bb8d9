"""Reading an upstream's answer without being held up by it.

Whoever relays a stream must be able to look up from a silent upstream: to keep the client's connection
alive, to notice that the client left, and to give up in time. So a thread opens the answer, and reads it
too where the connection cannot be waited for a moment only.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from app.threads import Threads
from app.upstream.hanging_up import Register, hang_up

TICK = 0.5
"""Seconds after which a silent upstream gives the taker a turn."""


SIZE_LIMIT = 64_000_000
"""Bytes that no answer or event has."""

_BACKLOG = 1000  # reads that may wait for the taker
_ROOM_POLL = 0.01  # seconds

_threads = Threads("upstream reader")


Receive = Callable[[], bytes | None]
"""Returns the bytes that have come; ``b""`` when none came within a tick, None at the end."""


class Body(Protocol):
    """An open answer."""

    @property
    def receive(self) -> Receive | None:
        """What reads a connection that can be waited for; None where a thread has to read :meth:`chunks`."""

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


class _Reader:
    """Opens an answer in a thread of its own, and reads it there where it has to."""

    def __init__(self, open_body: Callable[[Register], Body]) -> None:
        self._open_body = open_body
        self._items: SimpleQueue[bytes | Receive] = SimpleQueue()  # the last one tells how it goes on
        self._receive: Receive | None = None
        self._body: Body | None = None  # that the taker reads
        self._connection: socket.socket | None = None
        self._over = False  # the connection is no longer for the thread to read
        self._left = False  # nobody takes any more
        self._lock = threading.Lock()
        _threads.run(self._run)

    def take(self) -> bytes | None:
        """Return what has come; ``b""`` when nothing came within a tick, None at the end.

        :raises Exception: what opening or reading raises
        """
        if self._receive is None:
            items = take(self._items)
            data = b"".join(item for item in items if isinstance(item, bytes))
            if items and not isinstance(items[-1], bytes):
                self._receive = items[-1]
            if data or self._receive is None:
                return data
        return self._receive()

    def hang_up(self) -> None:
        """End the opening or reading at once; nothing happens when it is over already."""
        with self._lock:
            self._left = True
            over, self._over = self._over, True
            if not over and self._connection is not None:
                hang_up(self._connection)
            body, self._body = self._body, None
        if body is not None:
            body.close()

    def _register(self, connection: socket.socket) -> None:
        with self._lock:
            self._connection = connection
            if self._over:
                hang_up(connection)

    def _run(self) -> None:
        try:
            body = self._open_body(self._register)
        except BaseException as exc:  # raised again where the bytes are taken  # noqa: BLE001
            self._put(_raising(exc))
            return
        if body.receive is None:
            self._put(self._read(body))
        else:
            self._hand_over(body, body.receive)

    def _hand_over(self, body: Body, receive: Receive) -> None:
        with self._lock:
            self._over = True
            if not self._left:
                self._body = body
                self._items.put(receive)
                return
        body.close()

    def _read(self, body: Body) -> Receive:
        """Put what comes; return what tells of the end."""
        try:
            connection = body.connection()
            if connection is not None:
                self._register(connection)
            for chunk in body.chunks():
                self._put(chunk)
                if self._left:
                    break
        except BaseException as exc:  # raised again where the bytes are taken  # noqa: BLE001
            return _raising(exc)
        finally:
            with self._lock:  # from here on the connection may serve another request
                self._over = True
            body.close()
        return lambda: None

    def _put(self, item: bytes | Receive) -> None:
        """Hand over *item*; wait while the taker is far behind, unless nobody takes any more."""
        while self._items.qsize() >= _BACKLOG and not self._left:
            time.sleep(_ROOM_POLL)  # the client is slower than the upstream: no haste
        self._items.put(item)


def _raising(error: BaseException) -> Receive:
    def receive() -> bytes | None:
        raise error

    return receive


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
        while (data := reader.take()) is not None:
            now = time.monotonic()
            if data:
                deadline = now + idle
            elif now > deadline:
                raise SilentUpstream
            yield data
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


def let_end(chunks: Generator[bytes, None, None]) -> None:
    """Give the connection of a complete answer a moment to end by itself, so that it can be used again.

    Whatever happens now is of no interest.
    """
    with contextlib.suppress(Exception):
        next(chunks, None)


def take(queue: SimpleQueue[_T]) -> list[_T]:
    """Return everything that is there; wait for one tick when that is nothing."""
    items: list[_T] = []
    try:
        items.append(queue.get(timeout=TICK))
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items

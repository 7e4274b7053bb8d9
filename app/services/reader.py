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
from typing import Protocol

TICK = 0.5
"""Seconds after which a silent upstream gives the taker a turn."""


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


_Item = bytes | BaseException | None  # None: the answer's end


class _Reader:
    """Opens and reads an answer in a thread of its own."""

    def __init__(self, open_body: Callable[[], Body]) -> None:
        self.items: SimpleQueue[_Item] = SimpleQueue()
        self._open_body = open_body
        self._body: Body | None = None
        self._over = False
        self._lock = threading.Lock()
        threading.Thread(target=self._read, name="upstream reader", daemon=True).start()

    def hang_up(self) -> None:
        """End the reading at once; nothing happens when it is over already."""
        with self._lock:
            connection = self._body.connection() if self._body and not self._over else None
            self._over = True
            if connection is not None:
                with contextlib.suppress(OSError):  # closed by the other side already
                    # Closing a socket does not wake who reads it, shutting it down does. The plain
                    # socket's method: TLS has one of its own that is not safe during a read.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            body = self._open_body()
        except BaseException as exc:  # noqa: BLE001  # raised again where the bytes are taken
            self.items.put(exc)
            return
        try:
            with self._lock:
                self._body = body
                abandoned = self._over
            if not abandoned:
                for chunk in body.chunks():
                    self.items.put(chunk)
            self.items.put(None)
        except BaseException as exc:  # noqa: BLE001  # as above
            self.items.put(exc)
        finally:
            with self._lock:  # from here on the connection may serve another request
                self._over = True
            body.close()


def read(open_body: Callable[[], Body], *, first_byte: float, idle: float) -> Generator[bytes, None, None]:
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
            items = _take(reader.items)
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


def _take(queue: SimpleQueue[_Item]) -> list[_Item]:
    """Return everything that is there; wait for one tick when that is nothing."""
    items: list[_Item] = []
    try:
        items.append(queue.get(timeout=TICK))
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items

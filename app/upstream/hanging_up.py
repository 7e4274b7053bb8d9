"""Connections that are known before they are answered, so that another thread can hang up on them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Register = Callable[[socket.socket], None]
"""Is told the connection of a request while its answer is still awaited."""

_opening = threading.local()


@contextlib.contextmanager
def announcing(register: Register | None) -> Iterator[None]:
    """Tell *register* the connection of a request that this thread makes in here."""
    _opening.register = register
    try:
        yield
    finally:
        _opening.register = None


def announce(connection: socket.socket) -> None:
    """Make *connection* known to whoever listens, from inside of an HTTP library."""
    register: Register | None = getattr(_opening, "register", None)
    if register is not None:
        register(connection)


def hang_up(connection: socket.socket) -> None:
    """Wake who reads from *connection*: closing a socket does not, shutting it down does."""
    with contextlib.suppress(OSError):  # closed by the other side already
        # The plain socket's method: TLS has one of its own that is not safe during a read.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)

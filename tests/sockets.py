"""What a client sees of its connection."""

from __future__ import annotations

import socket


def is_open(connection: socket.socket) -> bool:
    """Tell whether the server has left *connection* open."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False

"""Run a server until the process is being stopped, and then let its answers end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.errors import ServerStopping
from app.server.connection import Connection
from app.server.listener import Listener
from app.server.request import Request
from app.stopping import stopping

_PATIENCE = 5.0  # seconds that the running answers have to end
_STUCK_AFTER = 1.0  # seconds after which a client that takes nothing is not waited for
_LAST_PATIENCE = 1.0  # seconds for the requests that came while everything was closed: they are refused
_POLL = 0.1  # seconds
_QUIET = 3  # looks without a request: one accepts a connection, the next one reads it


def run(listener: Listener, close: Callable[[], None]) -> None:
    """Serve until :data:`~app.stopping.stopping` is set; then let the running answers end.

    New requests are refused meanwhile, until this function returns.

    :param close: is called in a thread after the running answers; closes what they used
    """
    while not stopping.is_set():
        _poll(listener, listener.pause or 1.0)
    _Ending(listener).wait(_PATIENCE)
    closing = threading.Thread(target=close, name="close")
    closing.start()
    while closing.is_alive():
        _poll(listener, _POLL)
    _Ending(listener).wait(_LAST_PATIENCE)


def _poll(listener: Listener, timeout: float) -> None:
    """Read requests and write answers; wait for them up to *timeout* seconds."""
    listener.asyncore.loop(timeout, use_poll=True, map=listener._map, count=1)  # noqa: SLF001


class _Ending:
    """Serves on until the answers are over."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._moved: dict[Connection, tuple[int, float]] = {}  # the bytes so far, and since when

    def wait(self, patience: float) -> None:
        """Serve until no request runs and all answers are sent, for *patience* seconds at most."""
        deadline = time.monotonic() + patience
        quiet = 0
        while quiet < _QUIET:
            _poll(self._listener, _POLL)
            now = time.monotonic()
            connections = list(self._listener.active_channels.values())
            for connection in connections:
                self._end(connection, now)
            is_busy = any(connection.is_busy for connection in connections)
            quiet = 0 if is_busy or self._listener.task_dispatcher.active_count else quiet + 1
            if now > deadline:
                return

    def _end(self, connection: Connection, now: float) -> None:
        """Refuse a request that has not come whole yet; hang up on a client that takes nothing."""
        request = connection.request
        if isinstance(request, Request) and request.headers_finished and not connection.has_thread:
            connection.break_off(request, ServerStopping())
        moved, since = self._moved.setdefault(connection, (connection.moved, now))
        if moved != connection.moved:
            self._moved[connection] = (connection.moved, now)
        elif now - since > _STUCK_AFTER and connection.total_outbufs_len:
            connection.handle_close()

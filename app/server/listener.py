"""Accept connections, and keep their number within a limit: those that are silent for long give way."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from app.config import Config
from app.server.connection import Connection, peer_of
from app.server.dispatcher import GrowingDispatcher
from app.server.request import Bodies
from app.server.workers import Worker

log = logging.getLogger(__name__)

_AT_ONCE = 32  # connections accepted before other clients are served again
_SHARE = 4  # one client may have a fourth of the connections
_GIVING_WAY = 0.02  # seconds without accepting when another worker has fewer connections
_PAUSE = 1.0  # seconds without accepting when there are no files for more connections
_LOOK_INTERVAL = 1.0  # seconds between looks for clients that take too long
_SHRINK_INTERVAL = 30.0  # seconds in which a thread must be needed once to stay
_WARN_INTERVAL = 60.0  # seconds between warnings of the same kind
_NO_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True)
class Limits:
    """How long a client may take, in seconds.

    :param head: for the head of a request
    :param client: between requests; and for each part of a body or of an answer that comes too slowly
    """

    head: float
    client: float


class Listener(TcpWSGIServer):
    """Waitress's server on a socket that is bound already."""

    channel_class = Connection
    task_dispatcher: GrowingDispatcher
    _map: dict[int, Any]
    active_channels: dict[int, Connection]  # type: ignore[assignment]  # the stubs name the class of its values

    def __init__(
        self,
        app: Flask,
        config: Config,
        sock: socket.socket,
        adjustments: Adjustments,
        dispatcher: GrowingDispatcher,
        worker: Worker | None = None,
    ) -> None:
        self.bodies = Bodies(app, config.max_bodies, config.data_dir)
        self.limits = Limits(config.head_timeout, config.client_timeout)
        self._peers: Counter[str | None] = Counter()
        self._worker = worker
        self._open = 0  # connections
        self._gave_way = 0.0
        self._resume = self._next_look = self._next_shrink = self._next_warning = 0.0
        super().__init__(
            app,
            map={},
            _sock=sock,
            dispatcher=dispatcher,
            adj=adjustments,
            bind_socket=False,
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
        )
        if worker:
            worker.note(0)

    @property
    def pause(self) -> float:
        """The seconds until it may accept again; 0 if it may."""
        return max(0.0, self._resume - time.monotonic())

    def readable(self) -> bool:
        """Tell whether to accept connections; this is asked at least once a second."""
        now = time.monotonic()  # and not the time of day, which can be set back
        if now >= self._next_look:
            self._next_look = now + _LOOK_INTERVAL
            for connection in list(self.active_channels.values()):
                connection.look(now)
        if now >= self._next_shrink:
            self._next_shrink = now + _SHRINK_INTERVAL
            self.task_dispatcher.shrink()
        return self.accepting and now >= self._resume

    def handle_accept(self) -> None:
        """Accept the connections that wait."""
        if self._gives_way():
            return
        for _ in range(1 if self._worker else _AT_ONCE):
            try:
                pair: tuple[socket.socket, Any] | None = self.accept()
            except OSError as exc:
                if exc.errno in _NO_FILES:
                    self._free_files(exc)
                return
            if pair is None:
                return
            self._take(*pair)

    def _gives_way(self) -> bool:
        """Leave the connections to a worker that has fewer, for a moment: it can be too busy to take them."""
        now = time.monotonic()
        if self._worker is None or self._worker.has_fewest or now < self._gave_way + 2 * _GIVING_WAY:
            return False
        self._gave_way, self._resume = now, now + _GIVING_WAY
        return True

    def _take(self, sock: socket.socket, address: Any) -> None:
        try:
            self.set_socket_options(sock)
        except OSError:  # the client has left
            sock.close()
            return
        has_room = self._make_room(peer_of(address[0]))
        connection = Connection(self, sock, address, self.adj, map=self._map)
        connection.is_surplus = not has_room

    def add_task(self, task: Connection) -> None:  # type: ignore[override]  # each task is a connection
        """Let a thread serve the requests of a connection, unless one does already."""
        if not task.has_thread:
            task.has_thread = True
            super().add_task(task)  # type: ignore[arg-type]

    def count(self, peer: str | None, change: int) -> None:
        """Note that *peer* has one connection more or less."""
        self._peers[peer] += change
        if not self._peers[peer]:
            del self._peers[peer]
        if self._worker:
            self._open += change
            self._worker.note(self._open)

    def _make_room(self, peer: str | None) -> bool:
        """Close another connection if one more is too many; return False if none can be closed."""
        connections, limit = self.active_channels.values(), self.adj.connection_limit
        if peer is not None and self._peers[peer] >= max(1, limit // _SHARE):
            self._warn("%s has a fourth of all connections: its silent ones are closed.", peer)
            return self._close_silent(c for c in connections if c.peer == peer)
        if len(connections) >= limit:
            self._warn("There are %d connections, as many as allowed: silent ones are closed.", limit)
            return self._close_silent(connections)
        return True

    def _close_silent(self, connections: Iterable[Connection]) -> bool:
        found = min((c for c in connections if c.may_give_way), key=lambda c: c.silence, default=None)
        if found is not None:
            found.handle_close()
        return found is not None

    def _free_files(self, exc: OSError) -> None:
        """Close silent connections, so that the next ones can be accepted; if there are none, wait."""
        self._warn("No more connections can be opened (%s): silent ones are closed.", exc.strerror)
        for _ in range(_AT_ONCE):
            if not self._close_silent(self.active_channels.values()):
                self._resume = time.monotonic() + _PAUSE
                return

    def _warn(self, message: str, detail: object) -> None:
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARN_INTERVAL
            log.warning(message, detail)

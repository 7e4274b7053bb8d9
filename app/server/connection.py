"""One client's connection: what the client must do in which time, and when it gives way to another."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from app.config import is_loopback
from app.errors import ServiceError
from app.server.refusals import RequestTooSlow
from app.server.request import Request
from app.server.serving import ServedChannel

if TYPE_CHECKING:
    from app.server.listener import Listener

_LEAST_RATE = 1000  # bytes a second that a client sends of a body, or takes of an answer
_LINGERING = 5.0  # seconds in which a refused client may go on sending, and reads its answer


class Connection(ServedChannel):
    """A client's connection.

    :ivar peer: who counts as one client; None for this machine, where a proxy can speak for all clients
    :ivar is_surplus: whether there are too many connections: the next request is refused
    """

    _fileno: int | None

    def __init__(self, server: Listener, sock: socket.socket, addr: Any, *args: Any, **kwargs: Any) -> None:
        self.peer = peer_of(addr[0])
        self.is_surplus = False
        self.bodies = server.bodies
        self._refused: Request | None = None
        self._is_lingering = False
        self._has_served = False
        self._moved = 0  # bytes, in both directions
        self._mark: tuple[float, int, object] = (time.monotonic(), 0, None)
        super().__init__(server, sock, addr, *args, **kwargs)
        self.parser_class = partial(Request, connection=self)  # type: ignore[assignment]

    @property
    def is_busy(self) -> bool:
        """Whether a request runs, or the client has not taken all of its answer."""
        return bool(self.requests or self.total_outbufs_len or self._is_lingering)

    @property
    def moved(self) -> int:
        """The bytes that have come and gone so far."""
        return self._moved

    @property
    def may_give_way(self) -> bool:
        """Whether another client may have the place of this connection: it has no request that runs."""
        return not self.has_thread and not self.total_outbufs_len

    @property
    def silence(self) -> tuple[bool, float]:
        """The order in which connections give way: the most silent first; bodies that the app allows last."""
        request = self.request
        return isinstance(request, Request) and request.is_admitted, self.last_activity

    def readable(self) -> bool:
        """Tell whether the server's thread reads what the client sends."""
        return not self.has_thread and super().readable()

    def refuse(self, request: Request) -> bool:
        """Note that *request* is refused; return whether its answer can be sent at once."""
        self._refused = request
        return not self.requests

    def received(self, data: bytes) -> bool:
        """Read *data*; throw it away after a refusal, so that the client comes to read the answer."""
        self._moved += len(data)
        if self._refused is not None:
            return True
        is_read = super().received(data)
        self._has_served = self._has_served or bool(self.requests)
        if self._refused is not None and self._refused.empty:
            self._answer(self._refused)
        return is_read

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send *data*; return how much of it the system took."""
        sent: int = super().send(data, do_close)
        self._moved += sent
        return sent

    def handle_write(self) -> None:
        """Send what waits. After a refusal, wait until the client has read it: closing would discard it."""
        if self.has_thread:
            self._flush_exception(self._flush_some_if_lockable)  # type: ignore[attr-defined]  # not in the stubs
            if self.will_close:
                self.handle_close()
            return
        if self._refused is not None and self.close_when_flushed and not self.will_close:
            self._flush_exception(self._flush_some)  # type: ignore[attr-defined]  # not in the stubs
            if self.total_outbufs_len or self.will_close or self.socket is None:
                return
            self.close_when_flushed = False
            self._is_lingering = True
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            return
        super().handle_write()

    def handle_close(self) -> None:
        """Close the connection, and delete the part of a body that has come."""
        super().handle_close()
        if self.request is not None:
            self.request.close()

    def add_channel(self, map: Any = None) -> None:  # noqa: A002  # waitress's name
        """Count the connection as one of its client's."""
        super().add_channel(map)
        self.server.count(self.peer, 1)

    def del_channel(self, map: Any = None) -> None:  # noqa: A002  # waitress's name
        """Count the connection no more."""
        if self._fileno in self.server.active_channels:
            self.server.count(self.peer, -1)
        super().del_channel(map)

    def look(self, now: float) -> None:
        """Close the connection if its client takes too long; *now* is of :func:`time.monotonic`."""
        state, seconds, request = self._state()
        since, moved, before = self._mark
        fresh = (state, request, self._moved if state == "idle" else 0)
        if fresh != before:
            self._mark = (now, self._moved, fresh)
        elif now - since < seconds:
            return
        elif state in {"body", "sending"} and self._moved - moved >= _LEAST_RATE * seconds:
            self._mark = (now, self._moved, fresh)
        elif isinstance(request, Request) and state in {"head", "body"}:
            self.break_off(request, RequestTooSlow("The request came too slowly."))
        else:
            self.handle_close()

    def break_off(self, request: Request, error: ServiceError) -> None:
        """Refuse *request*, which has not come whole yet, because of *error*."""
        self.request = None
        request.refuse(error)
        self.refuse(request)
        self._answer(request)

    def _state(self) -> tuple[str, float, object]:
        """Return what the connection does, for how many seconds it may, and its unfinished request."""
        limits, request = self.server.limits, self.request
        if self._is_lingering:
            return "lingering", _LINGERING, None
        if self.total_outbufs_len:
            return "sending", limits.client, None
        if self.has_thread:
            return "serving", float("inf"), None
        if request is not None:
            return (
                ("body", limits.client, request)
                if request.headers_finished
                else ("head", limits.head, request)
            )
        return ("idle", limits.client, None) if self._has_served else ("head", limits.head, None)

    def _answer(self, request: Request) -> None:
        """Send the answer to a refused *request*, in this thread: the others may all have work."""
        self.requests.append(request)
        self.serve_next()


@lru_cache(maxsize=1024)
def peer_of(address: str) -> str | None:
    """Return what counts as one client: an IPv4 address, or the first half of an IPv6 address."""
    if is_loopback(address):
        return None
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)

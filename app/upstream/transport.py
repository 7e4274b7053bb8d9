"""An HTTP transport for the openai client whose connections can be polled, and shut down at any time.

The client's own transport, httpcore, blocks in each read, and gives access to its connection only after the
answer has begun. With it, each stream would need a thread, and a request without an answer could not be
ended. No library offers polling. Both ways were measured with the same 300 slow streams:

=====================  =============  =====================
..                     this module    httpcore and a thread
=====================  =============  =====================
CPU of 300 streams     3.4 s          6.1 to 7.7 s
time to first token    1.7 ms         3.5 ms
=====================  =============  =====================
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import cast

import httpx2

from app.threads import Threads
from app.upstream.connection import Connection, DirectBody
from app.upstream.reading import announce

# How many idle connections are kept, and for how many seconds. They must be closed before the server closes
# them: a request on a connection that the server is just closing fails, and must not be sent twice. gunicorn
# closes an idle connection after 2 s, Node after 5 s; large services, which use TLS, wait longer. For plain
# HTTP only one connection is kept, and only while no other request is running: a server with a single thread
# serves no other client while a connection is open.
_KEPT_PLAIN, _KEPT_TLS = (1, 1.0), (32, 4.0)

_ERROR_LIMIT = 1_000_000  # bytes

_threads = Threads("idle connections")


class DirectTransport(httpx2.BaseTransport):
    """Sends requests to one server; each request has a connection of its own until its answer is closed.

    The connection is announced before the request is answered.

    :param tls: the TLS settings; None for plain HTTP
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._pool = Pool(*(_KEPT_TLS if tls else _KEPT_PLAIN), beside_others=tls is not None)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send *request* and return the answer with its body unread.

        :raises httpx2.TransportError: when no answer comes
        """
        timeouts = request.extensions["timeout"]
        connection: Connection | None = None
        try:
            connection = self._pool.take() or Connection.to(request.url, timeouts["connect"], self._tls)
            announce(connection.sock)
            connection.send(request, timeouts["write"])
            head = connection.head(timeouts["read"])
        except BaseException:
            self._pool.give_back(connection, may_be_kept=False)
            raise
        # The client reads the body of an error while the answer still counts as opening. The service may shut
        # the connection down then, so the connection must not serve another request.
        is_success = head.status_code < 300
        body = DirectBody(
            connection, timeouts["read"], lambda: self._pool.give_back(connection, may_be_kept=is_success)
        )
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=body,
            extensions={"direct_body": body},
        )

    def close(self) -> None:
        """Close the idle connections; the connection of an open answer is closed with the answer."""
        self._pool.close()


class Pool:
    """Keeps idle connections for the next requests, and counts the running requests.

    :param most: the most idle connections to keep
    :param longest: seconds to keep an idle connection
    :param beside_others: whether to keep a connection while other requests are running
    """

    def __init__(self, most: int, longest: float, *, beside_others: bool) -> None:
        self._most = most
        self._longest = longest
        self._beside_others = beside_others
        self._idle: list[Connection] = []  # the longest idle connection comes first
        self._under_way = 0
        self._is_swept = False
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def take(self) -> Connection | None:
        """Return an idle connection for a request; None if the caller has to make a new one.

        The caller has to call :meth:`give_back` in both cases.
        """
        with self._lock:
            self._under_way += 1
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None or (self._is_fresh(connection) and connection.is_alive):
                return connection
            connection.close()

    def give_back(self, connection: Connection | None, *, may_be_kept: bool) -> None:
        """End a request: keep its connection for the next request, or close it.

        :param connection: None if no connection was made
        """
        with self._lock:
            self._under_way -= 1
            if connection is not None and may_be_kept and self._has_room() and connection.is_at_rest:
                self._keep(connection)
                connection = None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the idle connections, and from now on each connection that is given back."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
        _close(idle)

    def _has_room(self) -> bool:
        is_welcome = self._beside_others or not self._under_way
        return is_welcome and len(self._idle) < self._most and not self._closed.is_set()

    def _keep(self, connection: Connection) -> None:
        connection.protocol.start_next_cycle()
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if not self._is_swept:
            self._is_swept = True
            _threads.run(self._sweep)

    def _is_fresh(self, connection: Connection) -> bool:
        return time.monotonic() - connection.idle_since < self._longest

    def _sweep(self) -> None:
        """Close connections that are idle for too long; end when no idle connection is left."""
        due: float | None = 0.0
        while due is not None and not self._closed.wait(max(0.0, due - time.monotonic())):
            with self._lock:
                old = [connection for connection in self._idle if not self._is_fresh(connection)]
                self._idle = self._idle[len(old) :]
                self._is_swept = bool(self._idle)
                due = self._idle[0].idle_since + self._longest if self._idle else None
            _close(old)


def bound_error(response: httpx2.Response) -> None:
    """Limit the body of an error: the openai client reads the whole body, unpacks and decodes it.

    It is cut after :data:`_ERROR_LIMIT` bytes and, whatever its headers say, taken for UTF-8: unpacking would
    have no limit, and some encodings take minutes.
    """
    if response.status_code >= 300:
        response.headers.pop("content-encoding", None)
        response.encoding = "utf-8"
        response.stream = _BoundedStream(cast("httpx2.SyncByteStream", response.stream))


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, whole: httpx2.SyncByteStream) -> None:
        self._whole = whole

    def __iter__(self) -> Iterator[bytes]:
        left = _ERROR_LIMIT
        for part in self._whole:
            yield part[:left]
            left -= len(part)
            if left <= 0:
                return

    def close(self) -> None:
        self._whole.close()


def _close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import httpx2

from app.threads import Threads
from app.upstream.connection import Connection, ResponseParser, connect
from app.upstream.reading import Ticks

# How many idle connections are kept, and for how many seconds. They must be closed before the server closes
# them: a request on a connection that the server is just closing fails, and must not be sent twice. gunicorn
# closes an idle connection after 2 s, Node after 5 s; large services, which use TLS, wait longer.
_KEPT_PLAIN, _KEPT_TLS = (32, 1.0), (32, 4.0)

_threads = Threads("idle connections")


class Answer(Protocol):
    """The answer to a request; nothing waits for longer than one tick."""

    @property
    def status(self) -> int:
        """The status; 0 until :meth:`begin` has ended."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by their names in small letters."""

    def begin(self) -> Ticks:
        """Send the request, and read the head of the answer.

        :raises httpx2.TransportError: when there is no answer
        :raises TooMuch: when its headers have too many bytes
        """

    def receive(self) -> bytes | None:
        """Return the bytes of the body that came; ``b""`` when none came within a tick, None at the end.

        :raises httpx2.TransportError: when the connection ends before the answer is complete
        """

    def close(self) -> None:
        """Give the connection back, or close it."""


class DirectTransport(httpx2.BaseTransport):
    """Sends requests to one server; each request has a connection of its own until its answer is closed.

    :param tls: the TLS settings; None for plain HTTP
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._pool = Pool(*(_KEPT_TLS if tls else _KEPT_PLAIN), at_once=1 if tls is None else _KEPT_TLS[0])

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return an answer in whose extension `answer` is the real one, a :class:`DirectAnswer`."""
        return httpx2.Response(200, extensions={"answer": DirectAnswer(request, self._pool, self._tls)})

    def close(self) -> None:
        """Close the idle connections; the connection of an open answer is closed with the answer."""
        self._pool.close()


class DirectAnswer:
    """The :class:`Answer` to *request* over a connection of *pool*."""

    def __init__(self, request: httpx2.Request, pool: Pool, tls: ssl.SSLContext | None) -> None:
        self._request = request
        self._pool = pool
        self._tls = tls
        self._connection: Connection | None = None
        self._parser = ResponseParser()
        self._is_under_way = False
        self._has_begun = False

    @property
    def status(self) -> int:
        """The status; 0 until the whole head came."""
        return self._parser.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by their names in small letters."""
        return self._parser.headers

    def begin(self) -> Ticks:
        """Send the request, and read the head of the answer."""
        request, timeouts = self._request, self._request.extensions["timeout"]
        self._is_under_way = True
        with _translated(httpx2.ConnectTimeout, httpx2.ConnectError):
            self._connection = self._pool.take() or (
                yield from connect(*_server_of(request.url), timeouts["connect"], self._tls)
            )
        with _translated(httpx2.WriteTimeout, httpx2.WriteError):
            yield from self._connection.send(_head_of(request) + request.content, timeouts["write"])
        parser = self._parser
        while not parser.status:
            self._read()
            if not parser.status:
                yield b""
        self._pool.answered(self._connection)
        if parser.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise httpx2.RemoteProtocolError("the answer has an unknown transfer-encoding")

    def receive(self) -> bytes | None:
        """Return the parts of the body that came; the very first part alone."""
        parser = self._parser
        if not (parser.parts or parser.is_over):
            self._read()
        parts = parser.parts
        if not parts:
            return None if parser.is_over else b""
        # Pass on the first token before the tokens that came with it are parsed.
        data = b"".join(parts) if self._has_begun else parts[0]
        del parts[: None if self._has_begun else 1]
        self._has_begun = True
        return data

    def close(self) -> None:
        """Give the connection back, or close it."""
        if self._is_under_way:
            self._is_under_way = False
            self._pool.give_back(self._connection, may_be_kept=self._parser.is_at_rest)
            self._parser.close()

    def _read(self) -> None:
        """Take the next bytes of the answer; wait for them for one tick at most."""
        if self._connection is None:
            raise AssertionError("the request was not sent")
        self._parser.check()
        try:
            data = self._connection.receive()
        except OSError as exc:
            raise httpx2.ReadError(str(exc)) from exc
        if data is not None:
            self._parser.feed(data)


class Pool:
    """Keeps idle connections for the next requests, and counts the running requests.

    A server with a single thread serves no other client while a connection is open. So connections are kept
    only as long as no more are open than the server has shown to serve at once: it answered over one of them
    while the others, over which it had answered before, were open.

    :param most: the most idle connections to keep
    :param longest: seconds to keep an idle connection
    :param at_once: the connections that the server is known to serve at once
    """

    def __init__(self, most: int, longest: float, *, at_once: int) -> None:
        self._most = most
        self._longest = longest
        self._at_once = at_once
        self._answered: set[Connection] = set()  # the open connections over which the server has answered
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
            self._close([connection])

    def answered(self, connection: Connection) -> None:
        """Note that the server answers over *connection*."""
        with self._lock:
            self._answered.add(connection)
            self._at_once = max(self._at_once, len(self._answered))

    def give_back(self, connection: Connection | None, *, may_be_kept: bool) -> None:
        """End a request: keep its connection for the next request, or close it.

        :param connection: None if no connection was made
        """
        with self._lock:
            self._under_way -= 1
            if connection is not None and may_be_kept and self._has_room():
                self._keep(connection)
                connection = None
        if connection is not None:
            self._close([connection])

    def close(self) -> None:
        """Close the idle connections, and from now on each connection that is given back."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
        self._close(idle)

    def _has_room(self) -> bool:
        idle = len(self._idle)
        return idle < self._most and idle + self._under_way < self._at_once and not self._closed.is_set()

    def _close(self, connections: list[Connection]) -> None:
        with self._lock:
            self._answered.difference_update(connections)
        for connection in connections:
            connection.close()

    def _keep(self, connection: Connection) -> None:
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
            self._close(old)


def _server_of(url: httpx2.URL) -> tuple[str, int]:
    return url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


def _head_of(request: httpx2.Request) -> bytes:
    """Return the first line and the headers of *request*.

    :raises httpx2.LocalProtocolError: when one of them cannot be sent
    """
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise httpx2.LocalProtocolError("a header has more than one line")
    return head + b"\r\n\r\n"


@contextmanager
def _translated(silent: type[httpx2.TimeoutException], failed: type[httpx2.NetworkError]) -> Iterator[None]:
    """Turn the exceptions of sockets into those that httpx2's own transport raises.

    :param silent: the exception for a timeout
    :param failed: the exception for a connection that fails
    """
    try:
        yield
    except TimeoutError as exc:
        raise silent(str(exc)) from exc
    except OSError as exc:
        raise failed(str(exc)) from exc

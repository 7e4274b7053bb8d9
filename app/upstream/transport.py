"""HTTP for the openai client, over connections that can be polled, and that one can hang up on.

The client's own transport, httpcore, waits inside of a read, and shows its connection only when the answer
has begun. So a thread would have to read each stream, and nothing could end a request that is not answered
yet. Polling is what no library offers. Both ways measured, with the same 300 slow streams:

=====================  =============  =====================
..                     this module    httpcore and a thread
=====================  =============  =====================
CPU of 300 streams     3.4 s          6.1 to 7.7 s
time to first token    1.7 ms         3.5 ms
=====================  =============  =====================
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import cast

import h11
import httpx2

from app.upstream.connection import Line
from app.upstream.pool import Pool
from app.upstream.reading import TICK, announce

# How many idle connections are kept, and for how many seconds. For a few seconds only, because a request that
# crosses its server's closing must not be sent twice: gunicorn closes an idle connection after 2 s, Node
# after 5 s; large services, which are behind TLS, after more. And of plain HTTP only one, when no other
# request is under way: a server with a single thread serves nobody else as long as a connection is open.
_KEPT_PLAIN, _KEPT_TLS = (1, 1.0), (32, 4.0)

_ERROR_LIMIT = 1_000_000  # bytes


class DirectTransport(httpx2.BaseTransport):
    """Sends requests to one server, each over a connection that no other one uses at the time.

    A connection is announced before its request is answered.

    :param tls: for a server that speaks it
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._pool = Pool(*(_KEPT_TLS if tls else _KEPT_PLAIN), beside_others=tls is not None)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer with its body unread.

        :raises httpx2.TransportError: when there is none
        """
        timeouts = request.extensions["timeout"]
        line = self._pool.take()
        try:
            line = line or Line.to(request.url, timeouts["connect"], self._tls)
            announce(line.connection)
            line.send(request, timeouts["write"])
            head = line.head(timeouts["read"])
        except BaseException:
            self._pool.give_back(line, may_be_kept=False)
            raise
        # The body of a refusal is read while the answer is still being opened: whoever hangs up then must
        # not meet another request.
        is_success = head.status_code < 300
        body = DirectBody(line, timeouts["read"], lambda: self._pool.give_back(line, may_be_kept=is_success))
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=body,
            extensions={"direct_body": body},
        )

    def close(self) -> None:
        """Close the idle connections; those of open answers are closed with them."""
        self._pool.close()


class DirectBody(httpx2.SyncByteStream):
    """The body of an answer, which can be polled; see :class:`app.upstream.reading.Body`.

    :param limit: seconds of silence after which iterating fails
    :param ended: called once, when the body is closed
    """

    def __init__(self, line: Line, limit: float, ended: Callable[[], None]) -> None:
        self.connection = line.connection
        self._line = line
        self._limit = limit
        self._ended = ended
        self._is_first = True
        self._is_over = False
        self._is_closed = False
        line.connection.settimeout(TICK)

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end.

        :raises httpx2.TransportError: when the answer ends before its end
        """
        parts = self._parts()
        if not (parts or self._is_over):
            self._receive()
            parts = self._parts()
        return b"".join(parts) if parts or not self._is_over else None

    def _parts(self) -> list[bytes]:
        """Return the parts of the body in the bytes that were received; the very first part alone."""
        parts: list[bytes] = []
        while not self._is_over:
            try:
                event = self._line.protocol.next_event()
            except h11.RemoteProtocolError as exc:
                if parts:
                    break  # it raises again after these were returned
                raise httpx2.RemoteProtocolError(str(exc)) from exc
            if event is h11.NEED_DATA:
                break
            if not isinstance(event, h11.Data):
                self._is_over = True
                break
            parts.append(bytes(event.data))
            if self._is_first:  # the first token does not wait for those that came with it
                self._is_first = False
                break
        return parts

    def _receive(self) -> None:
        try:
            self._line.receive()
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, which has lost the other end; a tick's has no number
                raise httpx2.ReadError(str(exc)) from exc
        except OSError as exc:
            raise httpx2.ReadError(str(exc)) from exc

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes as they come, which is how httpx2 reads the body of an error.

        :raises httpx2.ReadTimeout: when none come for too long
        """
        deadline = time.monotonic() + self._limit
        while (data := self.receive()) is not None:
            if data:
                yield data
                deadline = time.monotonic() + self._limit
            elif time.monotonic() > deadline:
                raise httpx2.ReadTimeout("nothing came")

    def close(self) -> None:
        """Give the connection back, or close it."""
        if not self._is_closed:
            self._is_closed = True
            self._ended()


def bound_error(response: httpx2.Response) -> None:
    """Cut the body of an error after :data:`_ERROR_LIMIT` bytes, because the client reads all of it."""
    if response.status_code >= 400:
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

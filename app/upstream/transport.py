"""HTTP for the openai client, over connections that know no waiting: they can be polled, and hung up on.

The client's own transport hides its connections until an answer has begun.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator

import h11
import httpx2

from app.threads import Threads
from app.upstream.connection import Line
from app.upstream.hanging_up import announce
from app.upstream.reading import TICK

# Connections that are kept for the next request, and for how many seconds. Not for long, as a request that
# crosses its server's closing must not be sent twice: gunicorn closes what is idle after 2 s, Node after 5;
# behind TLS are large services, which wait for longer. And of plain HTTP only one, when no other request is
# under way: a server with a single thread serves nobody else as long as a connection is open.
_KEPT_PLAIN, _KEPT_TLS = (1, 1.0), (32, 4.0)

_threads = Threads("idle connections")


class DirectTransport(httpx2.BaseTransport):
    """Sends requests to one server, each over a connection that no other one uses at the time.

    A connection is announced before its request is answered.

    :param tls: for a server that speaks it
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._most_idle, self._longest_idle = _KEPT_TLS if tls else _KEPT_PLAIN
        self._idle: list[Line] = []  # the one that rests longest first
        self._under_way = 0
        self._is_swept = False
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer with its body unread.

        :raises httpx2.TransportError: when there is none
        """
        timeouts = request.extensions["timeout"]
        line = self._open(request.url, timeouts["connect"])
        try:
            announce(line.connection)
            line.send(request, timeouts["write"])
            head = line.head(timeouts["read"])
        except BaseException:
            self._end(line, may_be_kept=False)
            raise
        # The body of a refusal is read while the answer is still being opened: whoever hangs up then must
        # not meet another request.
        is_success = head.status_code < 300
        body = DirectBody(line, timeouts["read"], lambda: self._end(line, may_be_kept=is_success))
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=body,
            extensions={"direct_body": body},
        )

    def close(self) -> None:
        """Close what is idle; what is not will be closed in the end."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
        _close(idle)

    def _open(self, url: httpx2.URL, timeout: float) -> Line:
        """Return an idle connection that can be used, or a new one; count the request."""
        with self._lock:
            self._under_way += 1
        try:
            return self._take() or Line.to(url, timeout, self._tls)
        except BaseException:
            with self._lock:
                self._under_way -= 1
            raise

    def _take(self) -> Line | None:
        while True:
            with self._lock:
                line = self._idle.pop() if self._idle else None
            if line is None or (self._is_fresh(line) and line.is_alive):
                return line
            line.close()

    def _end(self, line: Line, *, may_be_kept: bool) -> None:
        """Keep the connection of a request that is over, or close it."""
        with self._lock:
            self._under_way -= 1
            is_alone = self._tls is not None or not self._under_way
            has_room = len(self._idle) < self._most_idle and not self._closed.is_set()
            is_kept = may_be_kept and is_alone and has_room and line.is_at_rest
            if is_kept:
                line.protocol.start_next_cycle()
                line.idle_since = time.monotonic()
                self._idle.append(line)
                if not self._is_swept:
                    self._is_swept = True
                    _threads.run(self._sweep)
        if not is_kept:
            line.close()

    def _is_fresh(self, line: Line) -> bool:
        return time.monotonic() - line.idle_since < self._longest_idle

    def _sweep(self) -> None:
        """Close what is idle for too long, as long as there is anything idle."""
        due: float | None = 0.0
        while due is not None and not self._closed.wait(max(0.0, due - time.monotonic())):
            with self._lock:
                old = [line for line in self._idle if not self._is_fresh(line)]
                self._idle = self._idle[len(old) :]
                self._is_swept = bool(self._idle)
                due = self._idle[0].idle_since + self._longest_idle if self._idle else None
            _close(old)


class DirectBody(httpx2.SyncByteStream):
    """What follows the head of an answer.

    :param limit: seconds of silence after which iterating fails
    :param ended: is called once, when the body is closed
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
        """Return what has come; ``b""`` when nothing came within a tick, None at the end.

        :raises httpx2.TransportError: when the answer ends before its end
        """
        parts = self._parts()
        if not (parts or self._is_over):
            self._receive()
            parts = self._parts()
        return b"".join(parts) if parts or not self._is_over else None

    def _parts(self) -> list[bytes]:
        """Return what is in the bytes that were received."""
        parts: list[bytes] = []
        while not self._is_over:
            try:
                event = self._line.protocol.next_event()
            except h11.RemoteProtocolError as exc:
                if parts:
                    break  # it raises again when these are taken
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
            if exc.errno is not None:  # not ours, but the system's, which has lost the other end
                raise httpx2.ReadError(str(exc)) from exc
        except OSError as exc:
            raise httpx2.ReadError(str(exc)) from exc

    def __iter__(self) -> Iterator[bytes]:
        """Yield what comes.

        :raises httpx2.ReadTimeout: when nothing does for too long
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


def _close(lines: list[Line]) -> None:
    for line in lines:
        line.close()

"""HTTP for the openai client: connections that can be waited for a moment only, and hung up on."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import h11
import httpx2

from app.services.hanging_up import announce
from app.services.reader import TICK

_READ = 65536  # bytes
_HEAD_LIMIT = 100_000  # bytes that the headers of an answer may have

# A connection is used again if that is soon enough: no server closes what is idle for so short (gunicorn does
# after 2 s, Node after 5), and a request that crosses its closing must not be sent twice. What speaks plain
# HTTP is near, so that a new one costs little; and some of it has but a few threads, one for each connection.
_KEPT_PLAIN, _KEPT_TLS = (4, 1.0), (32, 4.0)  # connections, seconds


@dataclass
class _Line:
    """A connection, and what is spoken over it."""

    connection: socket.socket
    protocol: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
    )
    idle_since: float = 0.0

    def is_free(self, limit: float) -> bool:
        """Tell whether it is idle for less than *limit* seconds, and its other end is still there."""
        if time.monotonic() - self.idle_since > limit:
            return False
        self.connection.settimeout(0)
        try:  # its end, or what nobody asked for; of TLS too as it comes over the wire
            socket.socket.recv(self.connection, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class DirectTransport(httpx2.BaseTransport):
    """Sends each request over a connection that no other one uses, and announces it before it is answered.

    All of them go to one server.

    :param tls: for a server that speaks it
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._most_idle, self._longest_idle = _KEPT_TLS if tls else _KEPT_PLAIN
        self._idle: deque[_Line] = deque()
        self._lock = threading.Lock()
        self._is_closed = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer with its body unread.

        :raises httpx2.TransportError: when there is none
        """
        timeouts = request.extensions["timeout"]
        line = self._take() or _Line(_connect(request.url, timeouts["connect"], self._tls))
        try:
            announce(line.connection)
            line.connection.settimeout(timeouts["write"])
            _send(line, request)
            line.connection.settimeout(timeouts["read"])
            head = _head(line)
        except BaseException:
            line.connection.close()
            raise
        body = DirectBody(line, timeouts["read"], self._give_back)
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=body,
            extensions={"direct_body": body},
        )

    def close(self) -> None:
        """Close what is idle; what is not will be closed in the end."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().connection.close()

    def _take(self) -> _Line | None:
        with self._lock:
            while self._idle:
                line = self._idle.pop()
                if line.is_free(self._longest_idle):
                    return line
                line.connection.close()
        return None

    def _give_back(self, line: _Line) -> None:
        line.protocol.start_next_cycle()
        line.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(line)
            while len(self._idle) > (0 if self._is_closed else self._most_idle):
                self._idle.popleft().connection.close()


class DirectBody(httpx2.SyncByteStream):
    """What follows the head of an answer.

    :param limit: seconds of silence after which iterating fails
    :param give_back: takes the connection when the answer is over and another request may follow
    """

    def __init__(self, line: _Line, limit: float, give_back: Callable[[_Line], None]) -> None:
        self._line: _Line | None = line
        self._limit = limit
        self._give_back = give_back
        self.connection = line.connection
        self._protocol = line.protocol
        self._is_first = True
        self._is_over = False
        line.connection.settimeout(TICK)

    def receive(self) -> bytes | None:
        """Return what has come; ``b""`` when nothing came within a tick, None at the end.

        :raises httpx2.TransportError: when the answer ends before its end
        """
        parts: list[bytes] = []
        while not self._is_over:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError as exc:
                if parts:
                    break  # it raises again when these are taken
                raise httpx2.RemoteProtocolError(str(exc)) from exc
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                if self._is_first:  # the first token does not wait for those that came with it
                    self._is_first = False
                    break
            elif event is not h11.NEED_DATA:
                self._is_over = True
            elif parts:
                break
            else:
                try:
                    data = self.connection.recv(_READ)
                except TimeoutError:
                    return b""
                except OSError as exc:
                    raise httpx2.ReadError(str(exc)) from exc
                self._protocol.receive_data(data)
        return b"".join(parts) if parts else None

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
        line, self._line = self._line, None
        if line is None:
            return
        protocol = line.protocol
        if protocol.our_state is h11.DONE is protocol.their_state and not protocol.trailing_data[0]:
            self._give_back(line)
        else:
            line.connection.close()


def _connect(url: httpx2.URL, timeout: float, tls: ssl.SSLContext | None) -> socket.socket:
    host = url.raw_host.decode("ascii")
    with _translated(httpx2.ConnectTimeout, httpx2.ConnectError):
        connection = socket.create_connection((host, url.port or (443 if tls else 80)), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            return connection
        try:
            return tls.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise


def _send(line: _Line, request: httpx2.Request) -> None:
    with _translated(httpx2.WriteTimeout, httpx2.WriteError):
        send = line.protocol.send
        parts = (
            send(
                h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            ),
            send(h11.Data(data=request.read())),
            send(h11.EndOfMessage()),
        )
        # Who refuses a long request may answer and close before all of it was read.
        with suppress(BrokenPipeError, ConnectionResetError):
            line.connection.sendall(b"".join(part for part in parts if part))


def _head(line: _Line) -> h11.Response:
    with _translated(httpx2.ReadTimeout, httpx2.ReadError):
        while True:
            event = line.protocol.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                line.protocol.receive_data(line.connection.recv(_READ))


@contextmanager
def _translated(silent: type[httpx2.TimeoutException], failed: type[httpx2.NetworkError]) -> Iterator[None]:
    """Raise what httpx2's own transport would."""
    try:
        yield
    except TimeoutError as exc:
        raise silent(str(exc)) from exc
    except OSError as exc:
        raise failed(str(exc)) from exc
    except h11.RemoteProtocolError as exc:
        raise httpx2.RemoteProtocolError(str(exc)) from exc
    except h11.LocalProtocolError as exc:
        raise httpx2.LocalProtocolError(str(exc)) from exc

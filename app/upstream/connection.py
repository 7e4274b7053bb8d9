"""A connection that speaks HTTP/1.1, and the body of an answer, which can be polled."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import h11
import httpx2

from app.addresses import dialled
from app.upstream.limits import TooMuch
from app.upstream.reading import TICK

_READ = 65536  # bytes
_HEAD_LIMIT = 100_000  # the most bytes of an answer's headers


@dataclass
class Connection:
    """A socket and the state of HTTP/1.1 on it: one request and its answer at a time."""

    sock: socket.socket
    protocol: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
    )
    idle_since: float = 0.0

    @property
    def is_at_rest(self) -> bool:
        """Whether the last answer is complete, and no bytes came after it."""
        protocol = self.protocol
        is_done = protocol.our_state is h11.DONE is protocol.their_state
        return is_done and protocol.trailing_data == (b"", False)

    @property
    def is_alive(self) -> bool:
        """Whether the server has neither closed the idle connection nor sent bytes over it."""
        self.sock.settimeout(0)
        try:  # the plain socket's method: TLS sockets cannot peek, and TLS's own bytes count too
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    @classmethod
    def to(cls, url: httpx2.URL, timeout: float, tls: ssl.SSLContext | None) -> Connection:
        """Connect to the server of *url* within *timeout* seconds.

        :raises httpx2.TransportError: when there is no connection
        """
        host = url.raw_host.decode("ascii")
        with _translated(httpx2.ConnectTimeout, httpx2.ConnectError):
            connection = socket.create_connection((dialled(host), url.port or (443 if tls else 80)), timeout)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return cls(tls.wrap_socket(connection, server_hostname=host) if tls else connection)
            except BaseException:
                connection.close()
                raise

    def send(self, request: httpx2.Request, timeout: float) -> None:
        """Send the whole *request* within *timeout* seconds.

        :raises httpx2.TransportError: when sending fails
        """
        self.sock.settimeout(timeout)
        method, target, headers = request.method, request.url.raw_path, request.headers.raw
        with _translated(httpx2.WriteTimeout, httpx2.WriteError):
            head = h11.Request(method=method, target=target, headers=headers)
            events = (head, h11.Data(data=request.read()), h11.EndOfMessage())
            data = b"".join(self.protocol.send(event) or b"" for event in events)
            # A server that refuses a long request may answer and close before it has read the whole request.
            with suppress(ConnectionError, ssl.SSLEOFError):
                self.sock.sendall(data)

    def head(self, timeout: float) -> h11.Response:
        """Return the status and headers of the answer; each read may take *timeout* seconds.

        :raises httpx2.TransportError: when they do not come
        :raises TooMuch: when they have more than :data:`_HEAD_LIMIT` bytes
        """
        self.sock.settimeout(timeout)
        size = 0
        with _translated(httpx2.ReadTimeout, httpx2.ReadError):
            while True:
                event = self.protocol.next_event()
                if isinstance(event, h11.Response):
                    return event
                if event is h11.NEED_DATA:
                    if size > _HEAD_LIMIT:  # of several heads: any number of them may announce the last one
                        raise _head_too_large()
                    size += self.receive()

    def receive(self) -> int:
        """Read bytes and give them to the protocol; wait for them up to the socket's timeout.

        :return: the number of bytes; 0 at the end
        """
        data = self.sock.recv(_READ)
        self.protocol.receive_data(data)
        return len(data)

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


class DirectBody(httpx2.SyncByteStream):
    """The body of an answer, which can be polled; see :class:`app.upstream.reading.Body`.

    :param limit: seconds without a byte after which iterating fails
    :param ended: is called once, when the body is closed
    """

    def __init__(self, connection: Connection, limit: float, ended: Callable[[], None]) -> None:
        self.sock = connection.sock
        self._connection = connection
        self._limit = limit
        self._ended = ended
        self._is_first = True
        self._is_over = False
        self._is_closed = False
        connection.sock.settimeout(TICK)

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end of the answer.

        :raises httpx2.TransportError: when the connection ends before the answer is complete
        """
        parts = self._parts()
        if not (parts or self._is_over):
            self._receive()
            parts = self._parts()
        return b"".join(parts) if parts or not self._is_over else None

    def _parts(self) -> list[bytes]:
        """Return the parts of the body in the bytes received so far; the very first part alone."""
        parts: list[bytes] = []
        while not self._is_over:
            try:
                event = self._connection.protocol.next_event()
            except h11.RemoteProtocolError as exc:
                if parts:
                    break  # return these parts; the next call raises again
                raise httpx2.RemoteProtocolError(str(exc)) from exc
            if event is h11.NEED_DATA:
                break
            if not isinstance(event, h11.Data):
                self._is_over = True
                break
            parts.append(bytes(event.data))
            if self._is_first:  # pass on the first token before the tokens that came with it are parsed
                self._is_first = False
                break
        return parts

    def _receive(self) -> None:
        try:
            self._connection.receive()
        except TimeoutError as exc:
            # A tick's timeout has no errno. One from the system has: the connection to the server is lost.
            if exc.errno is not None:
                raise httpx2.ReadError(str(exc)) from exc
        except OSError as exc:
            raise httpx2.ReadError(str(exc)) from exc

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes as they come. httpx2 reads the body of an error like this.

        :raises httpx2.ReadTimeout: when no byte comes for *limit* seconds
        """
        deadline = time.monotonic() + self._limit
        while (data := self.receive()) is not None:
            if data:
                yield data
                deadline = time.monotonic() + self._limit
            elif time.monotonic() > deadline:
                raise httpx2.ReadTimeout("nothing came")

    def close(self) -> None:
        """Return the connection to the pool, or close it."""
        if not self._is_closed:
            self._is_closed = True
            self._ended()


def _head_too_large() -> TooMuch:
    return TooMuch(f"its headers have more than {_HEAD_LIMIT} bytes")


@contextmanager
def _translated(silent: type[httpx2.TimeoutException], failed: type[httpx2.NetworkError]) -> Iterator[None]:
    """Turn the exceptions of sockets and h11 into those that httpx2's own transport raises.

    :param silent: the exception for a timeout
    :param failed: the exception for a connection that fails
    """
    try:
        yield
    except TimeoutError as exc:
        raise silent(str(exc)) from exc
    except OSError as exc:
        raise failed(str(exc)) from exc
    except h11.RemoteProtocolError as exc:
        if exc.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            raise _head_too_large() from exc
        raise httpx2.RemoteProtocolError(str(exc)) from exc
    except h11.LocalProtocolError as exc:
        raise httpx2.LocalProtocolError(str(exc)) from exc

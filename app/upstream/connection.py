"""A connection to a server, and HTTP/1.1 over it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import h11
import httpx2

_READ = 65536  # bytes
_HEAD_LIMIT = 100_000  # bytes that the headers of an answer may have


@dataclass
class Line:
    """A connection and its HTTP: one request and its answer at a time."""

    connection: socket.socket
    protocol: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
    )
    idle_since: float = 0.0

    @property
    def is_at_rest(self) -> bool:
        """Whether all of the last answer came, and no bytes after it."""
        protocol = self.protocol
        is_done = protocol.our_state is h11.DONE is protocol.their_state
        return is_done and protocol.trailing_data == (b"", False)

    @property
    def is_alive(self) -> bool:
        """Whether the server has neither closed an idle connection nor sent anything over it."""
        self.connection.settimeout(0)
        try:  # the plain socket's method, as bytes of TLS count too
            socket.socket.recv(self.connection, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    @classmethod
    def to(cls, url: httpx2.URL, timeout: float, tls: ssl.SSLContext | None) -> Line:
        """Connect to the server of *url* within *timeout* seconds.

        :raises httpx2.TransportError: when there is no connection
        """
        host = url.raw_host.decode("ascii")
        with _translated(httpx2.ConnectTimeout, httpx2.ConnectError):
            connection = socket.create_connection((host, url.port or (443 if tls else 80)), timeout)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return cls(tls.wrap_socket(connection, server_hostname=host) if tls else connection)
            except BaseException:
                connection.close()
                raise

    def send(self, request: httpx2.Request, timeout: float) -> None:
        """Send *request*, all of it within *timeout* seconds.

        :raises httpx2.TransportError: when that fails
        """
        self.connection.settimeout(timeout)
        method, target, headers = request.method, request.url.raw_path, request.headers.raw
        with _translated(httpx2.WriteTimeout, httpx2.WriteError):
            head = h11.Request(method=method, target=target, headers=headers)
            events = (head, h11.Data(data=request.read()), h11.EndOfMessage())
            data = b"".join(self.protocol.send(event) or b"" for event in events)
            # A server that refuses a long request may answer and close before it has read all of it.
            with suppress(ConnectionError, ssl.SSLEOFError):
                self.connection.sendall(data)

    def head(self, timeout: float) -> h11.Response:
        """Return the head of the answer; each read may take *timeout* seconds.

        :raises httpx2.TransportError: when no head comes
        """
        self.connection.settimeout(timeout)
        with _translated(httpx2.ReadTimeout, httpx2.ReadError):
            while True:
                event = self.protocol.next_event()
                if isinstance(event, h11.Response):
                    return event
                if event is h11.NEED_DATA:
                    self.receive()

    def receive(self) -> None:
        """Hand the bytes that came to the protocol; wait for them as long as the socket's timeout says."""
        self.protocol.receive_data(self.connection.recv(_READ))

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@contextmanager
def _translated(silent: type[httpx2.TimeoutException], failed: type[httpx2.NetworkError]) -> Iterator[None]:
    """Raise the exceptions that httpx2's own transport raises.

    :param silent: for a timeout
    :param failed: for a connection that fails
    """
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

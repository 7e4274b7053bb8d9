"""Plain HTTP for the openai client: a connection for each request, which can be waited for and hung up on.

What speaks plain HTTP is near: no proxy stands between, and a new connection costs next to nothing.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import h11
import httpx2

from app.services.hanging_up import announce
from app.services.reader import TICK

_READ = 65536  # bytes
_HEAD_LIMIT = 100_000  # bytes that the headers of an answer may have


class NearTransport(httpx2.BaseTransport):
    """Sends each request over a connection of its own, which is announced before it is answered."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer with its body unread.

        :raises httpx2.TransportError: when there is none
        """
        timeouts = request.extensions["timeout"]
        connection = _connect(request.url, timeouts["connect"])
        try:
            announce(connection)
            protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
            connection.settimeout(timeouts["write"])
            _send(connection, protocol, request)
            connection.settimeout(timeouts["read"])
            head = _head(connection, protocol)
        except BaseException:
            connection.close()
            raise
        body = NearBody(connection, protocol, timeouts["read"])
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=body,
            extensions={"near_body": body},
        )


class NearBody(httpx2.SyncByteStream):
    """What follows the head of an answer.

    :param limit: seconds of silence after which iterating fails
    """

    def __init__(self, connection: socket.socket, protocol: h11.Connection, limit: float) -> None:
        self.connection = connection
        self._protocol = protocol
        self._limit = limit
        self._is_over = False
        connection.settimeout(TICK)

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
        """Close the connection."""
        self.connection.close()


def _connect(url: httpx2.URL, timeout: float) -> socket.socket:
    with _translated(httpx2.ConnectTimeout, httpx2.ConnectError):
        connection = socket.create_connection((url.raw_host.decode("ascii"), url.port or 80), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send(connection: socket.socket, protocol: h11.Connection, request: httpx2.Request) -> None:
    with _translated(httpx2.WriteTimeout, httpx2.WriteError):
        parts = (
            protocol.send(
                h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            ),
            protocol.send(h11.Data(data=request.read())),
            protocol.send(h11.EndOfMessage()),
        )
        # Who refuses a long request may answer and close before all of it was read.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"".join(part for part in parts if part))


def _head(connection: socket.socket, protocol: h11.Connection) -> h11.Response:
    with _translated(httpx2.ReadTimeout, httpx2.ReadError):
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                protocol.receive_data(connection.recv(_READ))


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

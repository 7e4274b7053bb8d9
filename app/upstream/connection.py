"""A connection to a server, and a parser of answers (HTTP/1.1); nothing waits for longer than one tick."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import httptools
import httpx2
from urllib3.util import wait_for_read, wait_for_write

from app.addresses import dialled, is_loopback, parse
from app.upstream.limits import TooMuch
from app.upstream.reading import TICK, SilentUpstream, Ticks
from app.upstream.threaded import in_thread

_READ = 65536  # bytes
_HEAD_LIMIT = 100_000  # the most bytes of an answer's headers


class Connection:
    """A socket, whose operations wait for one tick at most."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TICK)
        self.sock = sock
        self.idle_since = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the server has neither closed the idle connection nor sent bytes over it."""
        return not wait_for_read(self.sock, 0)

    def send(self, data: bytes, seconds: float) -> Ticks:
        """Send *data*.

        :raises TimeoutError: when it takes longer than *seconds*
        :raises OSError: when sending fails
        """
        deadline = time.monotonic() + seconds
        left = memoryview(data)
        # A server that refuses a long request may answer and close before it has read the whole request.
        with suppress(ConnectionError, ssl.SSLEOFError):
            while left:
                try:
                    left = left[self.sock.send(left) :]
                except TimeoutError as exc:  # noqa: PERF203 - at most once in a tick
                    _check(exc, deadline)
                    yield b""

    def receive(self) -> bytes | None:
        """Return the bytes that came, ``b""`` at the end; None when none came within a tick.

        :raises OSError: when the connection fails
        """
        try:
            return self.sock.recv(_READ)
        except TimeoutError as exc:
            _check(exc)
            return None

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def connect(
    host: str, port: int, seconds: float, tls: ssl.SSLContext | None
) -> Generator[bytes, None, Connection]:
    """Return a connection to *host*; yield ``b""`` in each tick until then.

    :param seconds: how long each step may take: to find an address, to connect to it, to agree about TLS
    :raises TimeoutError: when a step takes longer
    :raises OSError: when no connection can be made
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in (yield from _addresses(dialled(host), port, seconds)):
        sock = socket.socket(family, kind, protocol)
        try:
            yield from _reach(sock, address, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
                yield from _agree(sock, seconds)
            return Connection(sock)
        except ssl.SSLError:
            sock.close()
            raise
        except OSError as exc:
            sock.close()
            failure = failure or exc
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("the host has no address")


def _addresses(host: str, port: int, seconds: float) -> Generator[bytes, None, list[Any]]:
    """Return the addresses of *host*, as :func:`socket.getaddrinfo` does."""

    def look_up() -> list[Any]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    if parse(host) or is_loopback(host):
        return look_up()
    try:
        return (yield from in_thread(look_up, seconds=seconds))  # a resolver may take minutes
    except SilentUpstream as exc:
        raise TimeoutError from exc


def _reach(sock: socket.socket, address: Any, seconds: float) -> Ticks:
    """Connect *sock* to *address*."""
    sock.setblocking(False)
    with suppress(BlockingIOError):
        sock.connect(address)
        return
    deadline = time.monotonic() + seconds
    while not wait_for_write(sock, min(TICK, seconds)):
        if time.monotonic() > deadline:
            raise TimeoutError
        yield b""
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, "the connection failed")


def _agree(sock: ssl.SSLSocket, seconds: float) -> Ticks:
    """Do the handshake of TLS."""
    sock.settimeout(min(TICK, seconds))
    deadline = time.monotonic() + seconds
    while True:
        try:
            sock.do_handshake()
        except TimeoutError as exc:  # noqa: PERF203 - at most once in a tick
            _check(exc, deadline)
            yield b""
        else:
            return


def _check(exc: TimeoutError, deadline: float | None = None) -> None:
    """Raise *exc* unless it means only that a tick is over, before *deadline*."""
    # A tick's timeout has no errno. One from the system has: the connection to the server is lost.
    is_lost = exc.errno is not None
    if is_lost or (deadline is not None and time.monotonic() > deadline):
        raise exc


class ResponseParser:
    """Finds the head and the body of an answer in its bytes.

    :ivar status: 0 until the whole head came
    :ivar headers: by their names in small letters
    :ivar parts: the parts of the body that came, for the reader to take
    :ivar is_over: whether the whole body came
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.is_over = False
        self._parser = httptools.HttpResponseParser(self)
        # What RFC 9112 tells or allows a client to accept.
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._may_go_on = False
        self._failure: httptools.HttpParserError | None = None
        self._frame = 0  # bytes that belong to no body
        self._body = 0

    @property
    def is_at_rest(self) -> bool:
        """Whether the connection can serve another request: the answer is complete, nothing follows it."""
        return self.is_over and self._may_go_on and self._failure is None

    def feed(self, data: bytes) -> None:
        """Take the next bytes, or ``b""`` when the connection has ended; :meth:`check` tells what is wrong.

        :raises TooMuch: when there are more than :data:`_HEAD_LIMIT` bytes of headers
        """
        if not data:
            self._end()
            return
        before = self._body
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._failure = exc
        self._frame += len(data) - (self._body - before)
        if self._frame > _HEAD_LIMIT + 10 * self._body:  # a chunk of one byte has six others
            raise TooMuch(f"its headers have more than {_HEAD_LIMIT} bytes")

    def check(self) -> None:
        """Check what :meth:`feed` took.

        :raises httpx2.RemoteProtocolError: when it is not HTTP, or ended too early
        """
        if self._failure is not None and not self.is_over:
            raise httpx2.RemoteProtocolError("the answer is not valid HTTP") from self._failure

    def close(self) -> None:
        """Let go of the library's parser, which refers back to this object."""
        del self._parser

    def on_message_begin(self) -> None:
        """Note that another answer begins; the library calls this, like the methods below."""
        self._may_go_on = False
        if not self.is_over:
            self.headers.clear()  # those of 100 Continue

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those after the body do not count."""
        if not self.status:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status, unless more heads are to come."""
        status = self._parser.get_status_code()
        if status >= 200 and not self.is_over:
            self.status = status

    def on_body(self, data: bytes) -> None:
        """Take a part of the body."""
        if not self.is_over:
            self._body += len(data)
            self.parts.append(data)

    def on_message_complete(self) -> None:
        """Note that the answer is complete."""
        if not self.is_over:
            self.is_over = bool(self.status)
            self._may_go_on = self._parser.should_keep_alive()

    def _end(self) -> None:
        framing = self.headers.keys() & {"content-length", "transfer-encoding"}
        if self.status and not framing:
            self.is_over = True
        elif not self.is_over:
            self._failure = self._failure or httptools.HttpParserError("the connection has ended")

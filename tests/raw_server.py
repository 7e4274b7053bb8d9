"""A server on loopback that sends exactly the bytes of a test's script."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

Script = Callable[["Connection"], None]


class Connection:
    """An accepted connection, and the request that was read from it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.request = b""

    def read_request(self) -> bool:
        """Read one request with its body; return False when the client closed the connection before."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self._sock.recv(65536)
            if not part:
                return False
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ]
        while len(body) < sum(lengths):
            body += self._sock.recv(65536)
        self.request = head + b"\r\n\r\n" + body
        return True

    @property
    def path(self) -> str:
        """The path of the request."""
        return self.request.split(b" ", 2)[1].decode()

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def send_head(self, content_type: str = "text/event-stream") -> None:
        self.send(
            f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    def send_chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def set_timeout(self, seconds: float) -> None:
        """Let sending and receiving fail after *seconds*."""
        self._sock.settimeout(seconds)

    def wait_for_close(self) -> None:
        """Wait until the client closes the connection."""
        with contextlib.suppress(ConnectionError):
            while self._sock.recv(65536):
                pass


class RawServer:
    """Runs *script* for the first request of each connection, then closes the connection.

    :param tls: a context with a certificate for localhost; None for plain HTTP
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError), self._encrypted(sock) as sock:
            connection = Connection(sock)
            if connection.read_request():
                self.requests.append(connection.request)
                self._script(connection)

    def _encrypted(self, sock: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(sock, server_side=True) if self._tls else sock

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which else takes one more
        self._listener.close()


@contextlib.contextmanager
def raw_server(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Serve *script* while the block runs."""
    server = RawServer(script, tls)
    try:
        yield server
    finally:
        server.close()

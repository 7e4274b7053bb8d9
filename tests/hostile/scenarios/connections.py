"""2,000 connections that say nothing, or say it slowly: others are answered, and it goes on afterwards."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress

from tests.hostile.client import ask
from tests.hostile.processes import Backend, wait_until
from tests.hostile.run import Run

_HEAD = b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
KINDS: dict[str, bytes] = {
    "idle": b"",
    "half a request line": b"GET /api/hea",
    "half a head": _HEAD,
    "half a body": _HEAD + b"Content-Length: 100\r\n\r\n{",
    "half a chunk": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "kept alive": b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}
JUNK: list[bytes] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"A" * 300_000, b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 50_000,
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 300_000, _HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    _HEAD + b"Content-Length: -1\r\n\r\n{}", _HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    _HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", _HEAD + b"Content-Length: +2\r\n\r\n{}",
    _HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", _HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n", b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
]  # fmt: skip


def run(run: Run) -> None:
    for gunicorn in run.pick([0], [0, 2]):
        backend = run.backend(run.provider(), gunicorn=gunicorn)
        server = "gunicorn" if gunicorn else "backend_server.py"
        for kind, sent in KINDS.items():
            if not gunicorn or kind == "idle":
                _hold(run, backend, f"{server}: {kind}", sent, run.pick(1200, 2000) if not gunicorn else 500)
        for junk in JUNK:
            _send_junk(run, backend, server, junk)
        run.result.check(not backend.traceback, f"{server}: a traceback: {backend.traceback}")
        run.result.check(backend.stop() == 0, f"{server}: SIGTERM does not end it")


def _hold(run: Run, backend: Backend, what: str, sent: bytes, count: int) -> None:
    """Open connections and let them hang; a client that comes then must be answered."""
    before = backend.usage()
    with ExitStack() as stack:
        opened = 0
        for _ in range(count):
            with suppress(OSError):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", backend.port), timeout=5))
                opened += 1
                sock.sendall(sent)
        for _ in range(3):
            began = time.monotonic()
            healthy = wait_until(lambda: backend.is_healthy(10), 20, 0.1)
            seconds = time.monotonic() - began
            run.result.check(healthy, f"{what}: with {opened} connections the health does not answer")
            chat = ask(backend, "/api/chat", {"message": "Hi"}, timeout=20)
            run.result.check(
                chat.status == 200, f"{what}: with {opened} connections a chat: {chat.describe()}"
            )
        run.result.check(seconds < 10, f"{what}: the health took {seconds:.1f} s")
    closed = wait_until(lambda: backend.usage()["files"] <= before["files"] + 30, 30, 0.2)
    run.result.check(closed, f"{what}: {before['files']} open files before, {backend.usage()['files']} after")


def _send_junk(run: Run, backend: Backend, server: str, junk: bytes) -> None:
    """Whatever is no HTTP is refused or hung up on; it is never a 5xx, and the next client is served."""
    status = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", backend.port), timeout=2) as sock:
        sock.sendall(junk)
        sock.shutdown(socket.SHUT_WR)
        status = sock.recv(65536)[:15]
    ours = status[9:10] != b"5" or status[9:12] in {b"501", b"505"}
    run.result.check(
        ours and backend.is_healthy(), f"{server}: {junk[:60]!r} ({len(junk)} bytes): {status!r}"
    )

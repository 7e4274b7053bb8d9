"""500 slow streams at once: each complete and in order, and no thread is left of them."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

from tests.free_port import free_port
from tests.hostile.client import watching
from tests.hostile.processes import Backend, Process, wait_until
from tests.hostile.run import Run


class Upstream(Process):
    """The provider of the benchmarks: `slow:50` sends 50 tokens, ten a second."""

    def __init__(self, run: Run) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
        super().__init__(command, run.folder / "upstream.log")


def run(run: Run) -> None:
    upstream = run.enter(Upstream(run))
    backend = run.backend(upstream)
    wait_until(
        lambda: backend.call("POST", "/api/chat", {"message": "Hi", "model": "instant"}).status_code == 200,
        20,
    )
    before = backend.usage()
    count, tokens = run.pick(100, 500), run.pick(30, 100)
    # One process has less CPU than 500 streams want, so all answers are late then.
    with watching(backend, seconds=15) as watch:
        answers = _stream(backend, count, tokens, run.pick(40, 120))
        most = backend.usage()["threads"]
    whole = "".join(f"t{number} " for number in range(tokens))
    for number, answer in enumerate(answers):
        ends = answer.count(b"event: done\n") + answer.count(b"event: error\n")
        text = _text(answer)
        run.result.check(ends == 1 and text == whole, f"stream {number}: {ends} ends, {len(text)} characters")
    run.result.check(not watch.unanswered, f"the health did not answer within 15 s, {watch.unanswered} times")
    ended = wait_until(lambda: backend.usage()["threads"] <= before["threads"] + 12, 90, 0.5)
    after = backend.usage()
    run.result.check(
        ended, f"the threads do not end: {before['threads']} before, {after['threads']} after 90 s"
    )
    run.result.note(
        f"{count} streams, {most} threads, {after['threads']} after; at most {watch.peak} MB;"
        f" slowest health {watch.worst:.1f} s"
    )


def _stream(backend: Backend, count: int, tokens: int, seconds: float) -> list[bytes]:
    """Read *count* streams at once, in one thread; return what came."""
    body = json.dumps({"message": "Hi", "model": f"slow:{tokens}", "stream": True}).encode()
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1:{backend.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    selector = selectors.DefaultSelector()
    parts: list[list[bytes]] = [[] for _ in range(count)]
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", backend.port), timeout=20)
        sock.sendall(head.encode() + body)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, number)
    until = time.monotonic() + seconds
    while selector.get_map() and time.monotonic() < until:
        for key, _ in selector.select(1):
            _read(selector, key, parts[key.data])
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return [b"".join(part) for part in parts]


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey, parts: list[bytes]) -> None:
    sock = key.fileobj
    assert isinstance(sock, socket.socket)
    try:
        data = sock.recv(65536)
    except OSError:
        data = b""
    if data:
        parts.append(data)
    else:
        selector.unregister(sock)
        sock.close()


def _text(answer: bytes) -> str:
    lines = [line for line in answer.split(b"\n") if line.startswith(b'data: {"content"')]
    found = []
    for line in lines:
        try:
            found.append(json.loads(line[6:])["content"])
        except ValueError:  # a chunk's border is in the line
            found.append("?")
    return "".join(found)

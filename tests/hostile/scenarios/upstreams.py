"""Providers that send bytes without end, bombs, drops and nonsense: one end to each request, and bounded memory."""

from __future__ import annotations

import functools
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

from tests.hostile.client import Watch, ask, together, watching
from tests.hostile.processes import Backend, wait_until
from tests.hostile.run import Run
from tests.raw_server import Connection, raw_server

Script = Callable[[Connection], None]

_SECONDS = 30  # within which each request must end; the timeouts of the backend are 2 s
_LOOK = 12  # seconds for a list or a look-up, which has 2 s in all
_MEMORY = 300  # MB more than at rest, for ten answers at once
_CHAT = {"provider": "odd", "model": "tiny", "message": "Hi"}
_V1 = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/api/chat", {**_CHAT, "stream": True}),
    ("POST", "/api/chat", _CHAT),
    ("POST", "/api/chat", {"message": "Hi", "model": "tiny", "options": {"num_ctx": 1024}, "stream": True}),
    ("POST", "/v1/chat/completions", {**_V1, "stream": True}),
    ("POST", "/v1/chat/completions", _V1),
    ("POST", "/api/embeddings", {"model": "tiny", "input": "Hi"}),
    ("GET", "/api/providers/ollama/models", None),
    ("GET", "/api/providers/ollama/models/tiny", None),
    ("GET", "/api/providers/ollama/running", None),
    ("GET", "/api/providers/odd/models", None),
    ("GET", "/v1/models", None),
    ("POST", "/api/providers/odd/test", None),
    ("POST", "/api/providers/ollama/pull", {"model": "tiny", "background": True}),
]

_FRAME = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}


def run(run: Run) -> None:
    current: list[Script] = [_close]
    server = run.enter(raw_server(lambda connection: current[0](connection)))
    timeouts = {f"BACKEND_{name}_TIMEOUT": "2" for name in ("CONNECT", "FIRST_BYTE", "IDLE", "LIST")}
    backend = run.backend(server, BACKEND_MAX_ANSWER="5000000", **timeouts)
    backend.call("POST", "/api/providers", {
        "id": "odd", "name": "Odd", "base_url": f"{server.url}/v1", "enabled": True, "model": "tiny",
    })  # fmt: skip
    ask(backend, "/api/chat", _CHAT)  # loads the modules of the clients
    names = sorted(ATTACKS)
    watches = {}
    for name in run.rng.sample(names, run.pick(8, len(names))):
        current[0] = ATTACKS[name]
        watches[name] = _attack(run, backend, name)
        if not run.result.check(backend.is_healthy(10), f"{name}: the health does not answer any more"):
            return
    with watching(backend) as watches["cuts"]:
        _cut_everywhere(run, backend, current)
    slowest = max(watches, key=lambda name: watches[name].worst)
    most = max(watch.peak for watch in watches.values())
    run.result.note(f"at most {most} MB; slowest health {watches[slowest].worst:.1f} s ({slowest})")
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")
    code = backend.stop()
    run.result.check(code == 0, f"SIGTERM after the attacks: {code}")


def _attack(run: Run, backend: Backend, name: str) -> Watch:
    """Send all requests at once to the provider that attacks."""
    before = backend.usage()["MB"]
    with watching(backend) as watch:
        answers = together(
            [
                functools.partial(ask, backend, path, body, method=method, timeout=_SECONDS)
                for method, path, body in REQUESTS
            ]
        )
        pull = answers[-1].body
        if isinstance(pull, dict) and "id" in pull:
            _cancel(run, backend, name, pull["id"])
    for (method, path, body), answer in zip(REQUESTS, answers, strict=True):
        what = (
            f"{name}: {method} {path}{' stream' if body and body.get('stream') else ''}: {answer.describe()}"
        )
        held = answer.ended_once and not answer.broken and answer.error_type != "internal_error"
        run.result.check(held and answer.seconds < (_LOOK if method == "GET" else _SECONDS), what)
    run.result.check(
        watch.peak - before < _MEMORY, f"{name}: the memory grew from {before} to {watch.peak} MB"
    )
    run.result.check(
        not watch.unanswered, f"{name}: the health did not answer within 5 s, {watch.unanswered} times"
    )
    return watch


def _cancel(run: Run, backend: Backend, name: str, id: str) -> None:
    path = f"/api/providers/ollama/pulls/{id}"
    ask(backend, f"{path}/cancel")
    over = wait_until(lambda: backend.get(path)["status"] in {"cancelled", "failed", "done"}, 10, 0.1)
    run.result.check(over, f"{name}: the pull cannot be cancelled")


def _cut_everywhere(run: Run, backend: Backend, current: list[Script]) -> None:
    """Cut good streams at each byte: `done` only if all was there."""
    for request in (REQUESTS[0], REQUESTS[2], REQUESTS[3]):
        native = "options" in request[2]
        stream = _native_stream() if native else _good_stream()
        for place in range(0, len(stream), run.pick(60, 3)):
            current[0] = functools.partial(_send_part, native, stream[:place])
            answer = ask(backend, request[1], request[2], timeout=_SECONDS)
            complete = answer.terminal != ["done"] or all(
                word in json.dumps(answer.events) for word in ("one ", "two ", "three ")
            )
            held = answer.ended_once and complete and not answer.broken
            run.result.check(held, f"{request[1]} cut at byte {place}: {answer.describe()}")


def _send_part(native: bool, part: bytes, connection: Connection) -> None:
    kind = "application/x-ndjson" if native else "text/event-stream"
    connection.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode() + part)


def _event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({**_FRAME, "choices": [choice]}).encode() + b"\n\n"


def _good_stream() -> bytes:
    words = b"".join(_event({"role": "assistant", "content": word}) for word in ("one ", "two ", "three "))
    return words + _event({}, "stop") + b"data: [DONE]\n\n"


def _native_stream() -> bytes:
    frame = {"model": "tiny", "created_at": "2026-01-01T00:00:00Z"}
    lines = [
        {"message": {"role": "assistant", "content": word}, "done": False}
        for word in ("one ", "two ", "three ")
    ]
    last = {
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "eval_count": 3,
    }
    return b"".join(json.dumps({**frame, **line}).encode() + b"\n" for line in [*lines, last])


# The attacks: what the provider sends to whatever it is asked.


def _close(connection: Connection) -> None:
    """Send nothing."""


def _head(connection: Connection, more: str = "", kind: str = "") -> None:
    streams = b'"stream": true' in connection.request or b'"stream":true' in connection.request
    kind = kind or ("text/event-stream" if streams and "/v1/" in connection.path else "application/json")
    connection.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Connection: close\r\n\r\n".encode())


def _forever(part: bytes, first: bytes = b"", more: str = "") -> Script:
    def script(connection: Connection) -> None:
        _head(connection, more)
        connection.send(first)
        while True:  # until the backend hangs up
            connection.send(part)

    return script


def _drip(part: bytes) -> Script:
    def script(connection: Connection) -> None:
        _head(connection)
        for _ in range(75):
            connection.send(part)
            time.sleep(0.2)

    return script


def _body(body: bytes, more: str = "") -> Script:
    def script(connection: Connection) -> None:
        _head(connection, more)
        connection.send(body)

    return script


def _raw(data: bytes, times: int = 1) -> Script:
    def script(connection: Connection) -> None:
        for _ in range(times):
            connection.send(data)

    return script


@functools.cache
def _bomb() -> bytes:
    """Return 400 MB of blanks, as gzip of 400 KB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    blank = b" " * 1_000_000
    return b"".join(packer.compress(blank) for _ in range(400)) + packer.flush()


def _send_bomb(connection: Connection) -> None:
    _head(connection, "Content-Encoding: gzip\r\n")
    connection.send(_bomb())


def _everywhere(value: str) -> bytes:
    """Return a JSON text that has *value* where an answer of each API has a text or a number."""
    model = f'{{"name": {value}, "model": {value}, "size": {value}, "digest": {value}, "modified_at": {value}, "details": {value}}}'
    usage = f'{{"prompt_tokens": {value}, "completion_tokens": {value}, "total_tokens": {value}}}'
    message = f'{{"role": "assistant", "content": {value}, "tool_calls": {value}}}'
    choice = f'{{"index": {value}, "message": {message}, "delta": {message}, "finish_reason": {value}}}'
    return (
        f'{{"models": [{model}], "data": [{{"id": {value}, "embedding": {value}, "index": {value}}}], "choices": [{choice}],'
        f' "usage": {usage}, "message": {message}, "done": {value}, "status": {value}, "total": {value}, "completed": {value},'
        f' "model_info": {value}, "capabilities": {value}, "created": {value}, "model": {value}, "eval_count": {value}}}'
    ).encode()


def _value(value: str) -> Script:
    """Send odd JSON as a body, as an event, and as a line."""

    def script(connection: Connection) -> None:
        _head(connection)
        streams = b'"stream": true' in connection.request or b'"stream":true' in connection.request
        event = streams and "/v1/" in connection.path
        connection.send(b"data: " + _everywhere(value) + b"\n\n" if event else _everywhere(value) + b"\n")

    return script


_DELTA = _event({"content": "word "}) * 100
_LINE = json.dumps({"message": {"role": "assistant", "content": "word "}, "done": False}).encode() + b"\n"

ATTACKS: dict[str, Script] = {
    "no answer": _close,
    "a line without end": _forever(b"x" * 65536, b"data: "),
    "a string without end": _forever(b"x" * 65536, b'{"models": [{"name": "'),
    "a list without end": _forever(b'{"name": "m", "model": "m"},' * 2000, b'{"models": ['),
    "digits without end": _forever(b"9" * 65536, b'{"models": '),
    "blanks without end": _forever(b" " * 65536),
    "lines without end": _forever(b"\n" * 65536),
    "comments without end": _forever(b": ping\n\n" * 8000),
    "deltas without end": _forever(_DELTA),
    "native lines without end": _forever(_LINE * 100),
    "chunks without end": _forever(b"1\r\nx\r\n" * 8000, more="Transfer-Encoding: chunked\r\n"),
    "a chunk size without end": _forever(b"0" * 65536, more="Transfer-Encoding: chunked\r\n"),
    "headers without end": _raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 8000, 200),
    "a header without end": _raw(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 10_000_000),
    "a status line without end": _raw(b"HTTP/1.1 200 " + b"x" * 10_000_000),
    "100 Continue without end": _raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 100),
    "a gzip bomb": _send_bomb,
    "no gzip": _body(b"this is not gzip" * 100, "Content-Encoding: gzip\r\n"),
    "a drip of blanks": _drip(b" "),
    "a drip of a string": _drip(b"x"),
    "a drip of comments": _drip(b": x\n\n"),
    "lists in lists": _body(b"[" * 100_000),
    "whole lists in lists": _value("[" * 50_000 + "]" * 50_000),
    "objects in objects": _value('{"a":' * 50_000 + "1" + "}" * 50_000),
    "half a character": _value('"\\ud800"'),
    "a NUL": _value('"\\u0000"'),
    "bytes that are no UTF-8": _body(b'{"models": [{"name": "\xff\xfe"}], "choices": "\xed\xa0\x80"}\n'),
    "a negative number": _value("-5"),
    "a number of 400 digits": _value("9" * 400),
    "a number of 5,000 digits": _value("9" * 5000),
    "NaN": _value("NaN"),
    "1e999": _value("1e999"),
    "null": _value("null"),
    "an object": _value("{}"),
    "a list": _value("[[], {}, 1]"),
    "true": _value("true"),
    "a long string": _value('"' + "x" * 3_000_000 + '"'),
    "an empty body": _body(b""),
    "HTML": _body(b"<html><script>alert(1)</script>"),
    "a list instead of an object": _body(b"[1, 2]"),
    "a body shorter than promised": _body(b'{"models": []', "Content-Length: 1000\r\n"),
    "a body longer than promised": _body(b'{"models": []}' * 10, "Content-Length: 5\r\n"),
    "a length of 5,000 digits": _body(b"{}", "Content-Length: " + "9" * 5000 + "\r\n"),
    "a negative length": _body(b"{}", "Content-Length: -1\r\n"),
    "status 999": _raw(b"HTTP/1.1 999 \r\n\r\n{}"),
    "status 204": _raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "status 304": _raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "no HTTP": _raw(b"\x16\x03\x01" + bytes(range(256)) * 100),
    "an error without end": _raw(b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\n\r\n" + b"x" * 65536, 2000),
    "a redirect to a file": _raw(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
    "a redirect in a circle": _raw(b"HTTP/1.1 307 T\r\nLocation: /api/tags\r\nContent-Length: 0\r\n\r\n"),
    "an error of deep JSON": _raw(b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\n\r\n" + b'{"error":' * 50_000),
    "an error with half a character": _raw(b"HTTP/1.1 400 Oh\r\nContent-Type: application/json\r\n\r\n" + b'{"error": "\\ud800"}'),
}  # fmt: skip

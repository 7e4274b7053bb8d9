"""The client: HTTP over asyncio's sockets, so that the client itself takes little of the measured time.

During the measurement it only collects bytes; :func:`read_answer` parses them afterwards.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import cast

from benchmarks.wire import FIRST_TOKEN

_LAST_CHUNK = b"\r\n0\r\n\r\n"


class LoadError(Exception):
    """An answer is a failure, incomplete, or not the expected text."""


@dataclass
class Answer:
    """The bytes that answered one request.

    :param seconds: from the request to the last byte
    :param first_token: seconds to the first token of a stream
    :param whole: whether the answer is complete
    """

    seconds: float = 0.0
    first_token: float | None = None
    whole: bool = False
    parts: list[bytes] = field(default_factory=list, repr=False)


class Connection(asyncio.Protocol):
    """One connection; ``async with Connection.open(port)``, then :meth:`ask` any number of times."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport
        self._over: asyncio.Future[None] | None = None
        self._answer = Answer()
        self._started = 0.0
        self._missing: int | None = None  # bytes; None: the head is not complete, -1: the body is chunked
        self._tail = b""
        self._last = False  # whether the server closes after this answer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect."""
        connection = cls(port)
        await connection._connect()
        return connection

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    async def ask(self, request: bytes, limit: float = 120) -> Answer:
        """Send *request*; return its answer, or what has come of it after *limit* seconds."""
        self._started = time.perf_counter()
        if self._transport.is_closing():  # by the server; a new connection is part of the measured time
            await self._connect()
        self._answer, self._missing, self._tail = Answer(), None, b""
        self._over = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await asyncio.wait_for(self._over, limit)
        except asyncio.TimeoutError:  # two classes in Python 3.10
            self._answer.seconds = time.perf_counter() - self._started
            self.close()
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; asyncio calls this when the connection is open."""
        self._last = False
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect *data*, and check whether the answer is complete."""
        answer = self._answer
        answer.parts.append(data)
        if answer.first_token is None and FIRST_TOKEN in self._tail + data:
            answer.first_token = time.perf_counter() - self._started
        self._tail = (self._tail + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        if self._missing is None:
            self._read_head()
        elif self._missing > 0:
            self._missing -= len(data)
        if self._missing == 0 or (self._missing == -1 and self._tail == _LAST_CHUNK):
            answer.whole = True
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End the request: no more of its answer will come."""
        self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._answer.seconds = time.perf_counter() - self._started
            self._over.set_result(None)
            if self._last:
                self.close()

    def _read_head(self) -> None:
        head, end, body = b"".join(self._answer.parts).partition(b"\r\n\r\n")
        if not end:
            return
        self._missing = -1
        for line in head.lower().split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                self._missing = int(value) - len(body)
            self._last = self._last or (name == b"connection" and value.strip() == b"close")


def post(path: str, body: object) -> bytes:
    """Return the bytes of a POST request."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def read_answer(answer: Answer) -> str:
    """Return the text of an answer, streamed or not; of an answer that was given up, the text so far.

    :raises LoadError: for a failure, and for a stream without its last event
    """
    head, _, body = b"".join(answer.parts).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadError(f"answered {(head + body)[:300]!r}" if head else "nothing was answered")
    if b"chunked" in head.lower():
        body = _join_chunks(body)
    if b"text/event-stream" in head:
        return _stream_text(body, answer.whole)
    parsed = json.loads(body)
    text: str = parsed["choices"][0]["message"]["content"] if "choices" in parsed else parsed["response"]
    return text


def _join_chunks(body: bytes) -> bytes:
    found: list[bytes] = []
    at = 0
    while (line_end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:line_end], 16)
        found.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
    return b"".join(found)


def _stream_text(body: bytes, whole: bool) -> str:
    """Return the text in OpenAI's events, or in this backend's."""
    found: list[str] = []
    ends = 0
    *lines, rest = body.split(b"\n")
    if whole and rest:
        raise LoadError("the last event is cut")
    for line in lines:
        if line in {b"event: done", b"data: [DONE]"}:
            ends += 1
        elif line == b"event: error" or (whole and line.startswith(b'data: {"error"')):
            raise LoadError("the stream ends with an error")
        elif line.startswith(b"data: {") and not ends:
            data = json.loads(line[6:])
            choices = data.get("choices", [{"delta": data}])
            found.extend(choice["delta"].get("content") or "" for choice in choices)
    if whole and ends != 1:
        raise LoadError(f"the stream has {ends} ends")
    return "".join(found)

"""The client: HTTP over asyncio's sockets, so that the client itself takes little of the measured time.

During the measurement it only collects bytes and their times; :mod:`benchmarks.answers` reads them later.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass
class Answer:
    """The bytes that answered one request.

    :param seconds: from the request to the last byte
    :param whole: whether the answer is complete
    :param times: for each of the parts, the seconds from the request
    """

    seconds: float = 0.0
    whole: bool = False
    parts: list[bytes] = field(default_factory=list, repr=False)
    times: list[float] = field(default_factory=list, repr=False)


class Connection(asyncio.Protocol):
    """One connection; ``await Connection.open(port)``, then :meth:`ask` any number of times."""

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
        loop = asyncio.get_running_loop()
        self._started = time.perf_counter()
        if self._transport.is_closing():  # by the server; a new connection is part of the measured time
            await self._connect()
        self._answer, self._missing, self._tail = Answer(), None, b""
        self._over = loop.create_future()
        timer = loop.call_later(limit, self.close)
        self._transport.write(request)
        await self._over
        timer.cancel()
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; asyncio calls this when the connection is open."""
        self._last = False
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect *data*, and check whether the answer is complete."""
        answer = self._answer
        answer.parts.append(data)
        answer.times.append(time.perf_counter() - self._started)
        if self._missing is None:
            self._read_head()
        elif self._missing > 0:
            self._missing -= len(data)
        if self._missing == -1:
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._missing == 0 or self._tail == _LAST_CHUNK:
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


def post(path: str, body: object, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of a POST request."""
    data = json.dumps(body).encode()
    sent = {"Host": "127.0.0.1", "Content-Type": "application/json", **headers, "Content-Length": len(data)}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data

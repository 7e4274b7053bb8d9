"""An upstream that answers at once: OpenAI's chat route and Ollama's own routes, from prepared bytes.

The model's name says how it answers: ``instant`` 200 tokens at once, ``long`` 50,000 tokens as fast as the
client reads them, ``slow`` 200 at 10 tokens per second, ``paced`` 200 at 50 tokens per second; a tag is
another number of tokens: ``slow:50``.

Run it: ``python -m benchmarks.upstream PORT``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

from benchmarks import wire

_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection, for any number of requests."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = b""
        self._left: list[bytes] = []  # pieces to write, in reverse order
        self._due = 0.0
        self._pace: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; asyncio calls this when the connection is open."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(0)  # 0: resume_writing() is called when the buffer is empty

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop writing."""
        self._left.clear()
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            size = end + 4 + _content_length(head)
            if len(self._received) < size:
                return
            body, self._received = self._received[end + 4 : size], self._received[size:]
            self._answer(head.split(b" ", 2)[1].decode(), body)

    def resume_writing(self) -> None:
        """Continue to write, now that the buffer is empty."""
        if self._timer is None:
            self._write_on()

    def _answer(self, path: str, body: bytes) -> None:
        if path != "/v1/chat/completions":
            self._transport.write(wire.route(path) or _NOT_FOUND)
            return
        request = json.loads(body)
        model = request["model"]
        if not request.get("stream"):
            self._transport.write(wire.whole(model))
            return
        self._pace = wire.pace_of(model)
        if self._pace is not None:
            self._left = list(reversed(wire.events(model)))
            self._due = asyncio.get_running_loop().time()
            self._write_next()
        else:
            self._left = list(reversed(wire.blocks(model)))
            self._write_on()

    def _write_on(self) -> None:
        while self._left and self._transport.get_write_buffer_size() == 0:
            self._transport.write(self._left.pop())

    def _write_next(self) -> None:
        self._transport.write(self._left.pop())
        if self._left:
            self._due += self._pace or 0
            self._timer = asyncio.get_running_loop().call_at(self._due, self._write_next)
        else:
            self._timer = None


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    return 0


async def serve(port: int) -> None:
    """Serve on *port* of 127.0.0.1 until cancelled."""
    wire.prepare()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

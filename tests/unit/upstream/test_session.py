"""The session of the library requests: what closing an answer does to its connection."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest

from app.errors import InvalidUpstreamResponse
from app.upstream.session import UpstreamSession, parts, translated
from app.upstream.threaded import ThreadedBody
from tests.raw_server import Connection, raw_server

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("end", [b"\r\n", b"Connection: close\r\n\r\n"], ids=["kept", "closed"])
@pytest.mark.parametrize("rest", [b"", b"0\r\nTrailer: 1\r\n"], ids=["silent", "trailers"])
def test_closed_body_hangs_up_on_an_answer_that_does_not_go_on(end: bytes, rest: bytes) -> None:
    is_over = threading.Event()

    def script(connection: Connection) -> None:
        connection.send(HEAD + end + b"1\r\na\r\n" + rest)
        connection.wait_for_close()
        is_over.set()

    with raw_server(script) as server, UpstreamSession() as session:

        def work() -> Generator[bytes, None, None]:
            options: Any = {"stream": True, "headers": {"Connection": "close"}, "timeout": 60}
            with closing(session.get(server.url, **options)) as response:
                yield from parts(response, 1000)

        body = ThreadedBody(work)
        assert next(data for data in iter(body.receive, None) if data) == b"a"
        body.close()

        assert is_over.wait(30)


def test_answer_with_two_lengths_is_invalid() -> None:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n{}")

    with (
        raw_server(script) as server,
        UpstreamSession() as session,
        pytest.raises(InvalidUpstreamResponse),
        translated("Ollama", server.url),
    ):
        session.get(server.url, stream=True, timeout=60)

"""Heads that are not plain HTTP/1.1 are refused with our error body, and the connection is closed."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server.chunks import Chunks
from app.server.head import MalformedRequest, read_head
from app.server.request import Body
from tests.unit.server.conftest import Served, read

GET = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /api/settings HTTP/1.1\r\nHost: localhost\r\n\r\n"

ODD = {
    "a length of 5,000 digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length of 19 digits": POST + b"Content-Length: " + b"1" * 19 + b"\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two headers of coding": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "a coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": GET + b"X-A: b\r\n c: d\r\n\r\n",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare CR": GET + b"X-A: b\rc: d\r\n\r\n",
    "a bare LF": GET + b"X-A: b\nTransfer-Encoding: chunked\r\n\r\n",
    "a NUL": GET + b"X-A: b\x00\r\n\r\n",
    "a blank before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a blank in a name": GET + b"X A: b\r\n\r\n",
    "a line without a colon": GET + b"nothing\r\n\r\n",
    "an empty name": GET + b": b\r\n\r\n",
    "no host": b"GET /api/health HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: localhost\r\n\r\n",
    "another host in the first line": b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an address that is none": b"GET http://[::1/api/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a user in the first line": b"GET http://a@localhost/api/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another scheme": b"GET x:/api/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tab in the path": b"GET /api/he\talth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a blank in the path": b"GET /api/health x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two blanks": b"GET  /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no version": b"GET /api/health\r\nHost: localhost\r\n\r\n",
    "HTTP/2.0": b"GET /api/health HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": b"get /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a chunk size that is no number": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "a chunk size with a bare LF": POST + b"Transfer-Encoding: chunked\r\n\r\n1\n\r\na\r\n0\r\n\r\n",
    "a size of 17 digits": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 17 + b"\r\n",
    "a trailer that is none": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx y\r\n\r\n",
    "a trailer that does not end": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 50,
    "a chunk that is too long": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a blank line for a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n",
    "a chunk with an odd extension": POST + b"Transfer-Encoding: chunked\r\n\r\n1;\x00\r\na\r\n0\r\n\r\n",
}


def test_odd_request_is_400_and_nothing_after_it_is_served(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, odd in ODD.items():
        with served.connect(odd + SMUGGLED) as connection:
            answer = read(connection)

        assert answer.status == 400, name
        assert answer.json["error_type"] == "bad_request", name
        assert answer.json["error"].endswith("."), name
        assert answer.json["request_id"] == answer.headers["x-request-id"], name
        assert (answer.headers["connection"], answer.rest) == ("close", b""), name
        assert "server" not in answer.headers
        assert b"waitress" not in answer.data
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_head_that_is_too_long_is_431(served: Served) -> None:
    with served.connect(GET + b"X-A: " + b"a" * 40_000) as connection:
        answer = read(connection)

    assert (answer.status, answer.json["error_type"]) == (431, "request_header_fields_too_large")


def test_requests_in_a_row_are_served_until_the_odd_one(served: Served) -> None:
    with served.connect(GET + b"\r\n" + GET + b"\r\n" + ODD["two lengths"] + SMUGGLED) as connection:
        answer = read(connection)

    assert answer.data.count(b"HTTP/1.1 200 ") == 2
    assert answer.data.count(b"HTTP/1.1 ") == 3
    assert answer.data.rstrip().endswith(b"}")


@pytest.mark.parametrize(
    "head",
    [
        "GET http://localhost/api/health HTTP/1.1\nHost: LOCALHOST",
        "GET /api/health HTTP/1.0\nHost: localhost",
        "HEAD /api/health HTTP/1.1\nHost: localhost\nExpect: 100-continue",
        "GET /api/health HTTP/1.1\nHost: localhost\nX-A: caf\xe9\nX_Under: 1\nX-Empty:",
        "GET /api/health HTTP/1.1\nHost: localhost\nSCRIPT_NAME: /api\nScript-Name: /api\nProxy: x",
        "GET /api/health HTTP/1.1\nHost: localhost\nX-HTTP-Method-Override: DELETE",
    ],
)
def test_plain_request_is_served(served: Served, head: str) -> None:
    answer = served.ask(f"{head}\nConnection: close")

    assert answer.status == 200


@given(st.binary(max_size=200))
def test_any_head_is_read_or_refused(head: bytes) -> None:
    with contextlib.suppress(MalformedRequest):
        read_head(head)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.integers(1, 40))
def test_chunks_are_put_together_however_they_arrive(parts: list[bytes], size: int) -> None:
    sent = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nX: y\r\n\r\n"
    body = Body(Path())
    chunks = Chunks(body)

    taken = sum(chunks.received((sent + b"next")[i : i + size]) for i in range(0, len(sent) + 4, size))

    assert chunks.completed
    assert taken == len(sent)
    assert body.getfile().read() == b"".join(parts)


@given(st.binary(max_size=100))
def test_any_chunks_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedRequest):
        assert Chunks(Body(Path())).received(data) <= len(data)

"""A large body is taken only after the app has looked at the head of its request."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest

from app.config import Config
from tests.engine.process import wait_until
from tests.unit.server.conftest import Serve, Served, read

KEY = "a-long-random-text-of-a-server"
CHAT = "POST /api/chat HTTP/1.1\nHost: localhost\nContent-Type: application/json"


def refused(served: Served, head: str) -> tuple[int, str]:
    """Send a head without its body; return the status and slug that answer it at once."""
    answer = served.ask(head)
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.rest == b""
    return answer.status, answer.json["error_type"]


POST = "POST /api/chat HTTP/1.1\nHost: localhost"
REFUSED = {
    "POST /api/chat HTTP/1.1\nHost: evil.example": (403, "host_not_allowed"),
    f"{POST}\nOrigin: https://evil.example": (403, "origin_not_allowed"),
    f"{POST}\nSec-Fetch-Site: cross-site": (403, "origin_not_allowed"),
    CHAT: (401, "unauthorized"),
    f"{CHAT}\nX-API-Key: {KEY}": (413, "body_too_large"),
    f"{POST}\nX-API-Key: {KEY}": (415, "unsupported_media_type"),
    f"{POST}\nContent-Type: application/octet-stream".replace("chat", "providers/ollama/create"): (
        401,
        "unauthorized",
    ),
    f"{CHAT}\nX-API-Key: {KEY}".replace("chat", "nope"): (413, "body_too_large"),
}


@pytest.mark.parametrize("expect", ["", "\nExpect: 100-continue"])
def test_head_that_may_not_send_its_body_is_answered_before_the_body(serve: Serve, expect: str) -> None:
    with serve(api_key=KEY) as served:
        for head, expected in REFUSED.items():
            assert refused(served, f"{head}\nContent-Length: 300000000{expect}") == expected


def test_unknown_path_does_not_get_a_body_that_is_within_the_limit(served: Served) -> None:
    head = "POST /api/nope HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 900000"

    assert refused(served, head) == (404, "not_found")


def test_expected_continue_is_sent_when_the_head_is_good_and_refused_otherwise(serve: Serve) -> None:
    body = json.dumps({"nope": 1}).encode()
    expect = f"Content-Length: {len(body)}\nExpect: 100-continue"
    with serve(api_key=KEY) as served:
        assert refused(served, f"{CHAT}\n{expect}") == (401, "unauthorized")

        head = f"{CHAT}\nX-API-Key: {KEY}\n{expect}\nConnection: close\n\n".replace("\n", "\r\n").encode()
        with served.connect(head) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(body)
            assert read(connection).status == 400  # the view has read it


def test_chunked_body_is_stopped_after_64_kilobytes_without_a_key(serve: Serve) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with serve(api_key=KEY) as served:
        answer = served.ask(f"{CHAT}\nTransfer-Encoding: chunked", chunk * 2)

        assert (answer.status, answer.json["error_type"]) == (401, "unauthorized")


def test_chunked_body_is_stopped_at_the_limit_of_its_view(served: Served) -> None:
    head = "POST /api/providers HTTP/1.1\nHost: localhost\nContent-Type: application/json"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    answer = served.ask(f"{head}\nTransfer-Encoding: chunked", chunk * 16)

    assert (answer.status, answer.json["error_type"]) == (413, "body_too_large")


def test_refused_client_that_sends_on_can_read_the_answer(serve: Serve) -> None:
    with serve(api_key=KEY) as served, served.connect() as connection:
        head = f"{CHAT}\nContent-Length: 100000000\n\n".replace("\n", "\r\n").encode()
        connection.sendall(head + b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200_000)
        answer = read(connection)

        assert answer.status == 401
        assert answer.rest == b""  # nothing in the body was served as a request


def test_refusal_below_v1_has_the_form_of_openai(serve: Serve) -> None:
    with serve(api_key=KEY) as served:
        answer = served.ask("POST /v1/chat/completions HTTP/1.1\nHost: localhost\nContent-Length: 99999999")

        assert answer.json["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("chunked", [True, False])
def test_large_body_reaches_its_view_whole(served: Served, chunked: bool) -> None:
    body = json.dumps({"message": "é" * 900_000, "nope": 1}).encode()
    if chunked:
        framing = "Transfer-Encoding: chunked"
        parts = [body[i : i + 70_001] for i in range(0, len(body), 70_001)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
    else:
        framing, sent = f"Content-Length: {len(body)}", body

    answer = served.ask(f"{CHAT}\n{framing}\nConnection: close", sent)

    assert answer.status == 400
    assert list(answer.json["details"]) == ["nope"]  # the rest was read as it was sent
    assert served.listener.bodies.held == 0


def test_bodies_of_all_connections_together_have_a_limit(serve: Serve) -> None:
    head = f"{CHAT}\nContent-Length: 1000000\n\n".replace("\n", "\r\n").encode()
    with serve(max_bodies=1_000_000) as served, served.connect(head + b"x" * 900_000) as first:
        wait_until(lambda: served.listener.bodies.held == 900_000)

        answer = served.ask(f"{CHAT}\nContent-Length: 200000", b"x" * 200_000)

        assert (answer.status, answer.json["error_type"]) == (503, "server_busy")
        assert answer.headers["retry-after"]
        first.close()
        wait_until(lambda: served.listener.bodies.held == 0)
        small = served.ask("GET /api/health HTTP/1.1\nHost: localhost\nConnection: close")
        assert small.status == 200


def test_body_lies_in_the_data_folder_without_a_name_and_is_gone_with_its_client(
    served: Served, config: Config
) -> None:
    files = Path(f"/proc/{os.getpid()}/fd")
    if not files.exists():
        pytest.skip("needs /proc")

    def unnamed() -> list[str]:
        found = [os.path.realpath(file) for file in files.iterdir()]
        return [name for name in found if name.startswith(f"{config.data_dir}/") and "(deleted)" in name]

    head = f"{CHAT}\nContent-Length: 10000000\n\n".replace("\n", "\r\n").encode()
    before = set(config.data_dir.iterdir())
    with served.connect(head + b"x" * 5_000_000):
        wait_until(lambda: served.listener.bodies.held == 5_000_000)
        assert len(unnamed()) == 1
        assert set(config.data_dir.iterdir()) == before

    wait_until(lambda: not unnamed())


def test_full_disk_is_an_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    answer = served.ask(f"{CHAT}\nContent-Length: 2000000", b"x" * 2_000_000)

    assert (answer.status, answer.json["error_type"]) == (507, "disk_full")


@pytest.mark.parametrize("line", [b"1;" + b"a" * 10_000, b"0\r\nA: " + b"a" * 10_000])
def test_long_line_between_chunks_is_refused(served: Served, line: bytes) -> None:
    answer = served.ask(f"{CHAT}\nTransfer-Encoding: chunked", line)

    assert (answer.status, answer.json["error_type"]) == (400, "bad_request")


def test_slow_body_is_answered(serve: Serve) -> None:
    with serve(client_timeout=0.1) as served:
        answer = served.ask(f"{CHAT}\nContent-Length: 1000", b"x")

        assert (answer.status, answer.json["error_type"]) == (408, "request_timeout")


def test_client_that_leaves_in_a_body_leaves_nothing(served: Served) -> None:
    head = f"{CHAT}\nContent-Length: 50\n\n".replace("\n", "\r\n").encode()
    with served.connect(head + b"x") as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read(connection).data == b""

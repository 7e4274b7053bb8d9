"""What upstreams send that is no answer, or nearly one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from app.errors import InvalidRequest
from tests.conftest import events
from tests.raw_server import Connection, raw_server

CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"
Point = Callable[..., None]
ASKED = {"message": "Hi", "provider": "openai"}


@pytest.fixture
def openai(httpserver: HTTPServer, point: Point) -> HTTPServer:
    point(httpserver.url_for("/v1"), "openai")
    return httpserver


def _stream(server: HTTPServer, *chunks: dict[str, Any] | str, start: bytes = b"") -> None:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    data = start + "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
    server.expect_request(COMPLETIONS).respond_with_data(data, content_type="text/event-stream")


def _delta(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta}]}


def _calls(*pieces: dict[str, Any]) -> list[dict[str, Any]]:
    return [_delta(tool_calls=[piece]) for piece in pieces]


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_tool_calls_that_are_all_numbered_alike_are_several(
    openai: HTTPServer, client: FlaskClient, index: Any
) -> None:
    pieces = [
        {**index, "id": id, "function": {"name": name, "arguments": f'{{"x": {number}}}'}}
        for number, (id, name) in enumerate([("a", "f"), ("b", "g"), ("c", "h")])
    ]
    _stream(openai, *_calls(*pieces))

    done = events(client.post(CHAT, json={**ASKED, "stream": True}))[-1][1]

    assert [call["id"] for call in done["tool_calls"]] == ["a", "b", "c"]
    assert [call["function"]["arguments"] for call in done["tool_calls"]] == [{"x": 0}, {"x": 1}, {"x": 2}]


@pytest.mark.parametrize("stream", [False, True])
def test_numbers_that_are_none_become_null(openai: HTTPServer, client: FlaskClient, stream: bool) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x": NaN, "y": 1e999}'}}
    logprobs = '{"content": [{"token": "a", "logprob": -Infinity}]}'
    part = json.dumps({"content": "a", "tool_calls": [call]})
    key = "delta" if stream else "message"
    chunk = f'{{"choices": [{{"{key}": {part}, "logprobs": {logprobs}, "finish_reason": "stop"}}]}}'
    if stream:
        _stream(openai, chunk)
    else:
        openai.expect_request(COMPLETIONS).respond_with_data(chunk, content_type="application/json")

    response = client.post(CHAT, json={**ASKED, "stream": stream, "logprobs": True})

    answer = events(response)[-1][1] if stream else response.json
    assert answer is not None
    assert answer["tool_calls"][0]["function"]["arguments"] == {"x": None, "y": None}
    assert answer["logprobs"] == [{"token": "a", "logprob": None}]


def test_byte_order_mark_swallows_nothing(openai: HTTPServer, client: FlaskClient) -> None:
    _stream(openai, _delta(content="hel"), _delta(content="lo"), start=b"\xef\xbb\xbf")

    done = events(client.post(CHAT, json={**ASKED, "stream": True}))[-1][1]

    assert done["response"] == "hello"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("whole", [{"choices": [{"message": {"content": 5}}]}, {"choices": [{"text": "x"}]}])
def test_content_that_is_no_text_is_no_answer(
    openai: HTTPServer, client: FlaskClient, whole: Any, stream: bool
) -> None:
    openai.expect_request(COMPLETIONS).respond_with_json(whole)

    response = client.post(CHAT, json={**ASKED, "stream": stream})

    assert response.json["error_type"] == "invalid_upstream_response"  # type: ignore[index]


def test_delta_that_is_no_text_ends_the_stream_with_an_error(openai: HTTPServer, client: FlaskClient) -> None:
    _stream(openai, _delta(content="a"), _delta(content=5))

    got = events(client.post(CHAT, json={**ASKED, "stream": True}))

    assert (got[-1][0], got[-1][1]["error_type"]) == ("error", "invalid_upstream_response")


ODD_NATIVE = [
    {"load_duration": 10**400},
    {"eval_count": 10**400},
    {"logprobs": 5},
    {"message": {"content": "a", "tool_calls": 5}},
]


@pytest.mark.parametrize("more", ODD_NATIVE)
def test_native_fields_of_odd_kinds_are_left_out(
    client: FlaskClient, ollama: HTTPServer, more: dict[str, Any]
) -> None:
    answer = {"message": {"content": "a"}, "done": True, **more}
    ollama.expect_request(CHAT).respond_with_data(json.dumps(answer))

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "think": False, "logprobs": True})

    assert response.status_code == 200
    assert response.json["response"] == "a"  # type: ignore[index]


@pytest.mark.parametrize("status", [200, 500])
def test_endless_answer_is_not_read_to_its_end(client: FlaskClient, point: Point, status: int) -> None:
    sent = []

    def script(connection: Connection) -> None:
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send(head.encode())
        part = b" " * 1_000_000
        while len(sent) < 300:
            connection.send_chunk(part)
            sent.append(1)

    with raw_server(script) as server:
        point(f"{server.url}/v1", "openai")

        response = client.post(CHAT, json={**ASKED, "stream": True})

        text = response.get_data(as_text=True)

    assert "error_type" in text
    assert len(sent) < 150


def test_half_a_character_is_told_as_such(client: FlaskClient, point: Point) -> None:
    point("http://127.0.0.1:9/v1", "openai")
    services = client.application.extensions["services"]

    with pytest.raises(InvalidRequest, match="an incomplete character"):
        list(services.chat.answer({**ASKED, "message": "a\ud800"}, "id"))


@pytest.mark.parametrize("number", ["1e999", "-1E+999", "9" * 400 + ".0"])
def test_number_that_is_too_large_is_bad_input(client: FlaskClient, number: str) -> None:
    tool = f'{{"function": {{"name": "f", "parameters": {{"a": {number}}}}}}}'
    body = f'{{"message": "q", "tools": [{tool}]}}'

    response = client.post(CHAT, data=body, content_type="application/json")

    assert (response.status_code, response.json["error_type"]) == (400, "invalid_request")  # type: ignore[index]


def test_completions_of_several_prompts_are_whole_when_all_are(client: FlaskClient, point: Point) -> None:
    def script(connection: Connection) -> None:
        connection.send_head()
        first = {"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}
        half = {"choices": [{"index": 1, "text": "half"}]}
        for chunk in (first, half):
            connection.send_chunk(f"data: {json.dumps(chunk)}\n\n".encode())
        connection.end()

    with raw_server(script) as server:
        point(f"{server.url}/v1", "openai")
        body = {"model": "openai/x", "prompt": ["a", "b"], "stream": True}

        text = client.post("/v1/completions", json=body).text

    assert "[DONE]" not in text
    assert "upstream_incomplete" in text

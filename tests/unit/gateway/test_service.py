"""``/v1`` in front of recorded and broken upstreams."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from app.errors import ServiceError
from app.extensions import Services
from app.schemas.openai_v1 import OpenAIRequest
from app.services.gateway.service import GatewayService, RelayedRequest
from app.services.usage.log import CallRecord
from tests.conftest import replay
from tests.raw_server import Connection, raw_server
from tests.wire import recording

CHAT = "/v1/chat/completions"
KEY = "sk-0123456789abcdef"
ASKED: OpenAIRequest = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "Hi"}]}
Point = Callable[..., None]


def _sent(server: HTTPServer, path: str = CHAT) -> dict[str, Any]:
    requests = [request for request, _ in server.log if request.path == path]
    body: dict[str, Any] = json.loads(requests[-1].get_data())
    return body


def _error(response: Any) -> dict[str, Any]:
    assert set(response.json) == {"error"}
    error: dict[str, Any] = response.json["error"]
    return error


def _last_error(response: Any) -> dict[str, Any]:
    """Return the error that ends a stream."""
    last = response.get_data().rstrip(b"\n").rpartition(b"\n")[2]
    assert last.startswith(b"data: {"), last
    error: dict[str, Any] = json.loads(last[6:])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("path", "asked", "recorded"),
    [
        (CHAT, ASKED, "v1_chat_nostream"),
        (CHAT, ASKED, "v1_chat_tool_call"),
        ("/v1/completions", {"model": "x", "prompt": "Once"}, "v1_completions_nostream"),
    ],
)
def test_answer_is_passed_back_byte_for_byte(
    client: FlaskClient, ollama: HTTPServer, path: str, asked: dict[str, Any], recorded: str
) -> None:
    replay(ollama, path, recorded)

    response = client.post(path, json=asked)

    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.get_data() == recording(recorded).body


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        (CHAT, "v1_chat_stream"),
        (CHAT, "v1_chat_stream_unicode"),
        (CHAT, "v1_chat_tool_call_stream"),
        ("/v1/completions", "v1_completions_stream"),
    ],
)
def test_stream_is_passed_back_byte_for_byte(
    client: FlaskClient, ollama: HTTPServer, path: str, recorded: str
) -> None:
    replay(ollama, path, recorded)

    response = client.post(path, json={**ASKED, "prompt": "Once", "stream": True})

    assert response.status_code == 200
    assert response.content_type == "text/event-stream; charset=utf-8"
    assert response.get_data() == recording(recorded).body


@pytest.mark.parametrize("stream", [False, None, True])
def test_parameters_are_passed_on_untouched(
    client: FlaskClient, ollama: HTTPServer, stream: bool | None
) -> None:
    replay(ollama, CHAT, "v1_chat_stream" if stream else "v1_chat_nostream")
    asked = {
        **ASKED,
        "stream": stream,
        "max_tokens": 5,
        "temperature": 0.1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": None}}}],
        "reasoning_effort": None,
        "made_up": {"deep": [1, 2.5, "\u00e9"]},
        "provider": {"order": ["a"]},
    }

    client.post(CHAT, json=asked, headers={"Authorization": "Bearer of-the-client"}).get_data()

    assert _sent(ollama) == asked
    request = ollama.log[-1][0]
    assert "of-the-client" not in str(request.headers)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("llama3.2:1b", "ollama", "llama3.2:1b"),
        ("ollama/llama3.2:1b", "ollama", "llama3.2:1b"),
        ("hf.co/user/repo:Q4_K_M", "ollama", "hf.co/user/repo:Q4_K_M"),
        ("ollama/hf.co/user/repo:Q4_K_M", "ollama", "hf.co/user/repo:Q4_K_M"),
        ("user/model", "ollama", "user/model"),
        ("openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openai/", "openai", "gpt-4o-mini"),
    ],
)
def test_name_leads_to_the_provider_and_its_model(
    client: FlaskClient, httpserver: HTTPServer, point: Point, name: str, provider: str, model: str
) -> None:
    for id in ("ollama", "openai", "openrouter"):
        point(httpserver.url_for(f"/{id}/v1"), id)
        replay(httpserver, f"/{id}{CHAT}", "v1_chat_nostream")

    response = client.post(CHAT, json={**ASKED, "model": name})

    assert response.status_code == 200, response.text
    assert _sent(httpserver, f"/{provider}{CHAT}")["model"] == model


@pytest.mark.parametrize("asked", [{}, {"model": None}, {"model": ""}, {"model": "ollama/"}])
def test_request_without_a_model_gets_one_that_is_installed(
    client: FlaskClient, ollama: HTTPServer, asked: dict[str, Any]
) -> None:
    replay(ollama, "/api/tags", "tags_models")
    replay(ollama, CHAT, "v1_chat_nostream")
    installed = [model["name"] for model in json.loads(recording("tags_models").body)["models"]]

    response = client.post(CHAT, json={"messages": ASKED["messages"], **asked})

    assert response.status_code == 200
    assert _sent(ollama)["model"] in installed


BAD = [
    pytest.param(CHAT, {**ASKED, "messages": "hi"}, "messages", id="messages-no-list"),
    pytest.param(CHAT, {**ASKED, "messages": []}, "messages", id="messages-empty"),
    pytest.param(CHAT, {**ASKED, "messages": ["hi"]}, "messages", id="message-no-object"),
    pytest.param(CHAT, {"model": "x"}, "messages", id="messages-missing"),
    pytest.param(CHAT, {**ASKED, "model": 5}, "model", id="model-number"),
    pytest.param(CHAT, {**ASKED, "model": "a b"}, "model", id="model-not-a-name"),
    pytest.param(CHAT, {**ASKED, "model": "openai/gpt-4o"}, "model", id="provider-disabled"),
    pytest.param(CHAT, {**ASKED, "stream": "yes"}, "stream", id="stream-text"),
    pytest.param(CHAT, {**ASKED, "stream": 1}, "stream", id="stream-number"),
    pytest.param("/v1/completions", {"model": "x"}, "prompt", id="prompt-missing"),
    pytest.param("/v1/embeddings", {"model": "x"}, "input", id="input-missing"),
    pytest.param("/v1/embeddings", {"model": "x", "input": []}, "input", id="input-empty"),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD)
def test_bad_input_is_400_and_names_the_field(
    client: FlaskClient, ollama: HTTPServer, path: str, body: dict[str, Any], param: str
) -> None:
    response = client.post(path, json=body)

    assert response.status_code == 400
    error = _error(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert not [request for request, _ in ollama.log if request.path == path]


@pytest.mark.parametrize("model", ["openai/a\0b", "openai/a\x85b"])
def test_model_that_no_database_takes_is_400_and_not_sent(
    client: FlaskClient, httpserver: HTTPServer, point: Point, model: str
) -> None:
    point(httpserver.url_for("/v1"), provider="openai")

    response = client.post(CHAT, json={**ASKED, "model": model})

    assert response.status_code == 400
    assert _error(response)["param"] == "model"
    assert not httpserver.log


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model_is_404_and_says_what_is_installed(
    client: FlaskClient, ollama: HTTPServer, stream: bool
) -> None:
    replay(ollama, CHAT, "v1_chat_unknown")
    replay(ollama, "/api/tags", "tags_models")

    response = client.post(CHAT, json={**ASKED, "model": "unknown-model:1b", "stream": stream})

    assert response.status_code == 404
    error = _error(response)
    assert (error["type"], error["code"], error["param"]) == ("not_found_error", "model_not_found", "model")
    assert "smollm2:135m" in error["message"]
    assert "pull" in error["message"]


@pytest.mark.parametrize(
    ("model", "status", "code", "said"),
    [
        ("gpt-9", 404, "model_not_found", "gpt-4o"),
        ("gpt-4o", 400, "capability_missing", "no completions for the model"),
    ],
)
def test_other_provider_that_says_404_lacks_the_model_or_the_endpoint(
    client: FlaskClient,
    httpserver: HTTPServer,
    point: Point,
    model: str,
    status: int,
    code: str,
    said: str,
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    missing = {"error": {"message": "not found", "type": "x", "param": None, "code": None}}
    httpserver.expect_request("/v1/completions").respond_with_json(missing, status=404)
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "gpt-4o"}]})

    response = client.post("/v1/completions", json={"model": f"openai/{model}", "prompt": "x"})

    assert response.status_code == status
    error = _error(response)
    assert (error["code"], error["param"]) == (code, "model")
    assert said in error["message"]


@pytest.mark.parametrize("asked", [{}, {"model": "openai/"}])
def test_request_without_a_model_to_a_provider_without_one_is_400(
    client: FlaskClient, httpserver: HTTPServer, point: Point, asked: dict[str, str]
) -> None:
    point(httpserver.url_for("/v1"), "openai", model="")
    client.put("/api/settings", json={"default_provider": "openai"})

    response = client.post(CHAT, json={"messages": ASKED["messages"], **asked})

    assert response.status_code == 400
    error = _error(response)
    assert (error["param"], error["message"].startswith("Model is required")) == ("model", True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "expected", "kind", "code"),
    [
        (400, 400, "invalid_request_error", "upstream_rejected"),
        (401, 401, "authentication_error", "invalid_api_key"),
        (429, 429, "rate_limit_error", "rate_limited"),
        (500, 500, "server_error", "upstream_error"),
        (503, 503, "server_error", "upstream_busy"),
    ],
)
def test_failure_before_the_first_byte_keeps_its_status(
    client: FlaskClient,
    ollama: HTTPServer,
    status: int,
    expected: int,
    kind: str,
    code: str,
    stream: bool,
) -> None:
    point_key = {"api_key": KEY}
    assert client.patch("/api/providers/ollama", json=point_key).status_code == 200
    said = {"error": {"message": f"no, not with {KEY}", "type": "x", "param": None, "code": None}}
    ollama.expect_request(CHAT).respond_with_json(said, status=status)

    response = client.post(CHAT, json={**ASKED, "stream": stream})

    assert response.status_code == expected
    error = _error(response)
    assert (error["type"], error["code"], error["param"]) == (kind, code, None)
    assert KEY not in response.text


def test_provider_that_is_down_is_503(client: FlaskClient, point: Point) -> None:
    point("http://127.0.0.1:9/v1")

    response = client.post(CHAT, json=ASKED)

    assert response.status_code == 503
    assert _error(response)["code"] == "upstream_unavailable"


@pytest.mark.parametrize("before", [b"", b": PROCESSING\n\n"])
def test_error_as_the_first_event_keeps_a_status_of_its_own(
    client: FlaskClient, ollama: HTTPServer, before: bytes
) -> None:
    body = before + b'data: {"error": {"message": "no memory"}}\n\n'
    ollama.expect_request(CHAT).respond_with_data(body, content_type="text/event-stream")

    response = client.post(CHAT, json={**ASKED, "stream": True})

    assert response.status_code == 500
    assert "no memory" in _error(response)["message"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"error": "no memory"}', b'{"choices": ['])
def test_whole_answer_that_is_none_is_an_error(client: FlaskClient, ollama: HTTPServer, body: bytes) -> None:
    ollama.expect_request(CHAT).respond_with_data(body, content_type="application/json")

    response = client.post(CHAT, json=ASKED)

    assert response.status_code == 500
    assert _error(response)["type"] == "server_error"


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": 5}',
        '{"choices": [5]}',
        '{"choices": [{"message": 5}]}',
        '{"choices": [{"message": {"content": 7}}]}',
        '{"choices": [{"message": {"content": "\\ud800"}}]}',
        '{"choices": [{"message": {"content": "a"}}], "usage": {"total_tokens": NaN}}',
        '{"choices": [{"message": {"content": "a"}}], "x": -Infinity}',
    ],
)
def test_whole_answer_without_an_answer_in_it_is_an_error(
    client: FlaskClient, ollama: HTTPServer, answer: str
) -> None:
    ollama.expect_request(CHAT).respond_with_data(answer, content_type="application/json")

    response = client.post(CHAT, json=ASKED)

    assert response.status_code == 500
    assert _error(response)["code"] == "invalid_upstream_response"


@pytest.mark.parametrize("content", ['"NaN and -Infinity"', "null", '[{"type": "text", "text": "a"}]'])
def test_whole_answer_of_any_right_form_is_passed_on(
    client: FlaskClient, ollama: HTTPServer, content: str
) -> None:
    answer = f'{{"choices": [{{"message": {{"content": {content}}}, "finish_reason": "stop"}}]}}'
    ollama.expect_request(CHAT).respond_with_data(answer, content_type="application/json")

    response = client.post(CHAT, json=ASKED)

    assert (response.status_code, response.get_data()) == (200, answer.encode())


def test_stream_that_is_none_is_an_error(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, CHAT, "v1_chat_nostream")

    response = client.post(CHAT, json={**ASKED, "stream": True})

    assert response.status_code == 500
    assert _error(response)["code"] == "invalid_upstream_response"


def test_runner_that_dies_in_mid_stream_ends_it_with_an_error(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    replay(ollama, CHAT, "v1_chat_runner_killed_midstream")

    response = client.post(CHAT, json={**ASKED, "stream": True})

    assert response.status_code == 200
    assert response.get_data().startswith(recording("v1_chat_runner_killed_midstream").body)
    assert b"[DONE]" not in response.get_data()
    error = _last_error(response)
    assert (error["type"], error["code"]) == ("server_error", "upstream_incomplete")


def test_connection_that_breaks_in_mid_event_ends_the_stream_with_an_error(
    client: FlaskClient, point: Point
) -> None:
    first = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(first + b'data: {"choices":[{"del')

    with raw_server(script) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={**ASKED, "stream": True})

        body = response.get_data()
    assert body.startswith(first + b"\n\ndata: {")
    assert _last_error(response)["code"] == "upstream_incomplete"


def test_first_events_are_passed_on_before_the_next_ones_come(client: FlaskClient, point: Point) -> None:
    first = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    rest = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    seen = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(first)
        assert seen.wait(20)
        connection.send_chunk(rest)
        connection.end()

    with raw_server(script) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={**ASKED, "stream": True})
        parts = iter(response.response)

        assert next(parts) == first
        seen.set()
        assert b"".join(part for part in parts if isinstance(part, bytes)) == rest
        response.close()


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_before_the_first_byte_frees_the_upstream(
    client: FlaskClient, point: Point, stream: bool
) -> None:
    hung_up = threading.Event()

    def say_nothing(connection: Connection) -> None:
        connection.wait_for_close()
        hung_up.set()

    with raw_server(say_nothing) as server:
        point(f"{server.url}/v1")

        environ = {"waitress.client_disconnected": lambda: True}
        client.post(CHAT, json={**ASKED, "stream": stream}, environ_overrides=environ)

        assert hung_up.wait(5)


def test_silent_stream_is_kept_alive_and_given_up_in_time(
    client: FlaskClient, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.streaming.PING_INTERVAL", 0.0)
    assert client.put("/api/settings", json={"timeouts": {"idle": 1}}).status_code == 200

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n')
        connection.wait_for_close()

    with raw_server(script) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={**ASKED, "stream": True})

        assert b"\n\n: ping\n\n" in response.get_data()
    assert _last_error(response)["code"] == "upstream_timeout"


def test_fault_of_the_program_ends_a_stream_with_an_error(
    client: FlaskClient, ollama: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> bytes:
        raise RuntimeError("secret thing")

    replay(ollama, CHAT, "v1_chat_runner_killed_midstream")
    monkeypatch.setattr("app.services.gateway.stream_check.StreamCheck.end", break_down)

    response = client.post(CHAT, json={**ASKED, "stream": True})

    error = _last_error(response)
    assert error["code"] == "internal_error"
    assert "secret thing" not in response.text


def _gateway(app: Flask, records: list[CallRecord]) -> GatewayService:
    services: Services = app.extensions["services"]
    return GatewayService(
        services.providers,
        services.settings,
        services.clients,
        services.offers,
        records.append,
        services.circuits,
    )


@pytest.mark.parametrize(
    ("recorded", "stream", "outcome", "tokens"),
    [
        ("v1_chat_nostream", False, "ok", (15, 14)),
        ("v1_chat_stream_include_usage", True, "ok", (15, 14)),
        ("v1_chat_runner_killed_midstream", True, "upstream_incomplete", (None, None)),
        ("v1_chat_runner_killed_nostream", False, "upstream_error", (None, None)),
    ],
)
def test_each_request_is_recorded_once(
    app: Flask, ollama: HTTPServer, recorded: str, stream: bool, outcome: str, tokens: tuple[Any, Any]
) -> None:
    replay(ollama, CHAT, recorded)
    records: list[CallRecord] = []
    request = RelayedRequest("chat/completions", "ollama", "x", {**ASKED, "stream": stream}, "id-1")

    with contextlib.suppress(ServiceError):
        list(_gateway(app, records).send(request))

    (record,) = records
    assert (record.prompt_tokens, record.completion_tokens) == tokens
    assert record.latency > 0
    assert (record.time_to_first_token is not None) is stream
    assert (record.provider, record.model, record.endpoint) == ("ollama", "x", "chat/completions")
    assert (record.outcome, record.streamed, record.request_id) == (outcome, stream, "id-1")


def test_client_that_leaves_is_recorded_too(app: Flask, ollama: HTTPServer) -> None:
    replay(ollama, CHAT, "v1_chat_stream")
    records: list[CallRecord] = []
    gateway = _gateway(app, records)

    left = gateway.send(RelayedRequest("chat/completions", "ollama", "x", {**ASKED, "stream": True}, "1"))
    next(chunk for chunk in left if chunk)
    left.close()

    assert [record.outcome for record in records] == ["client_left"]


@pytest.mark.parametrize(("provider", "model"), [("openai", "x"), ("nobody", "x"), ("ollama", "a b")])
def test_request_that_no_provider_can_be_asked_is_not_recorded(app: Flask, provider: str, model: str) -> None:
    records: list[CallRecord] = []

    with pytest.raises(ServiceError):
        next(_gateway(app, records).send(RelayedRequest("chat/completions", provider, model, ASKED, "2")))

    assert not records

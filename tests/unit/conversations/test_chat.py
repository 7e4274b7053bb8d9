"""``POST /api/chat`` in a conversation: what is sent along, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from app.errors import StorageFailed
from app.services.conversations.store import ConversationStore
from tests.conftest import events, replay
from tests.raw_server import Connection, raw_server
from tests.wire import recording

CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"
HELLO = "Awesome, welcome to the city of Elysium!"
Point = Callable[..., None]


def _create(client: FlaskClient, **values: Any) -> str:
    response = client.post("/api/conversations", json=values)
    assert response.json is not None
    id: str = response.json["id"]
    return id


def _messages(client: FlaskClient, id: str) -> list[dict[str, Any]]:
    response = client.get(f"/api/conversations/{id}?limit=500")
    assert response.json is not None
    messages: list[dict[str, Any]] = response.json["messages"]
    return messages


def _sent(server: HTTPServer) -> dict[str, Any]:
    requests = [request for request, _ in server.log if request.path == COMPLETIONS]
    body: dict[str, Any] = json.loads(requests[-1].get_data())
    return body


@pytest.mark.parametrize("stream", [False, True])
def test_conversation_sends_what_was_said_and_keeps_what_is(
    client: FlaskClient, ollama: HTTPServer, stream: bool
) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_stream_include_usage" if stream else "v1_chat_nostream")
    id = _create(client, system_prompt="Be brief.", model="x")
    body = {"message": "One", "conversation_id": id, "stream": stream}

    first = client.post(CHAT, json=body, buffered=True)
    second = client.post(CHAT, json={**body, "message": "Two"}, buffered=True)

    answer = events(second)[-1][1] if stream else second.json
    assert first.status_code == second.status_code == 200
    assert answer is not None
    assert answer["conversation_id"] == id
    assert [(m["role"], m["content"]) for m in _sent(ollama)["messages"]] == [
        ("system", "Be brief."),
        ("user", "One"),
        ("assistant", HELLO),
        ("user", "Two"),
    ]
    assert [(m["role"], m["content"], m["status"]) for m in _messages(client, id)] == [
        ("user", "One", "complete"),
        ("assistant", HELLO, "complete"),
        ("user", "Two", "complete"),
        ("assistant", HELLO, "complete"),
    ]
    assert _messages(client, id)[1]["usage"]["completion_tokens"] == 14


def test_conversation_asks_its_own_provider_and_model(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    replay(httpserver, COMPLETIONS, "v1_chat_nostream")
    id = _create(client, provider="openai", model="gpt-x")

    client.post(CHAT, json={"message": "One", "conversation_id": id})

    assert _sent(httpserver)["model"] == "gpt-x"


def test_answer_that_fails_is_kept_as_failed_and_not_sent_along(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    id = _create(client, model="x")
    body = {"message": "One", "conversation_id": id}
    ollama.expect_request(COMPLETIONS).respond_with_json({"error": "boom"}, status=500)
    failed = client.post(CHAT, json=body)
    ollama.clear()
    replay(ollama, COMPLETIONS, "v1_chat_nostream")

    client.post(CHAT, json={**body, "message": "Two"})

    assert failed.status_code == 500
    kept = _messages(client, id)
    assert [m["status"] for m in kept] == ["complete", "failed", "complete", "complete"]
    assert kept[1]["error"]["error_type"] == "upstream_error"
    assert [m["content"] for m in _sent(ollama)["messages"]] == ["Two"]


def test_whole_answer_that_failed_half_way_is_kept_as_failed_and_without_what_nobody_saw(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    id = _create(client, model="x")
    half = {"message": {"role": "assistant", "content": "Half an"}, "finish_reason": "error"}
    ollama.expect_request(COMPLETIONS).respond_with_json({"choices": [half]})

    response = client.post(CHAT, json={"message": "One", "conversation_id": id})

    assert (response.status_code, response.json["error_type"]) == (500, "upstream_error")  # type: ignore[index]
    assert "failed with HTTP" not in response.json["error"]  # type: ignore[index]
    kept = _messages(client, id)[1]
    assert (kept["status"], kept["content"], kept["data"]) == ("failed", "", {})


def test_answer_that_breaks_off_is_kept_as_cut_with_its_text(client: FlaskClient, point: Point) -> None:
    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n')
        connection.end()

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        id = _create(client, model="x")
        body = {"message": "One", "conversation_id": id, "stream": True}

        got = events(client.post(CHAT, json=body, buffered=True))

    assert got[-1][0] == "error"
    last = _messages(client, id)[-1]
    assert (last["status"], last["content"]) == ("cut", "Hel")
    assert last["error"]["error_type"] == "upstream_incomplete"


def test_answer_whose_client_leaves_is_kept_as_stopped(client: FlaskClient, point: Point) -> None:
    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n')
        connection.wait_for_close()

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        id = _create(client, model="x")
        body = {"message": "One", "conversation_id": id, "stream": True}

        response = client.post(CHAT, json=body)
        next(iter(response.response))
        response.close()

    last = _messages(client, id)[-1]
    assert (last["status"], last["content"]) == ("stopped", "Hel")


def _only_short(limit: int) -> Callable[[Request], Response]:
    """Refuse what is longer than *limit* characters, as some models do."""

    def chat(request: Request) -> Response:
        size = sum(len(message["content"]) for message in request.get_json()["messages"])
        if size > limit:
            return Response('{"error": {"message": "exceeds the available context size"}}', 400)
        found = recording("v1_chat_nostream")
        return Response(found.body, found.status, content_type=found.content_type)

    return chat


def test_conversation_that_outgrows_the_window_leaves_the_oldest_out(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    running = {"name": "x:latest", "size": 1, "digest": "a" * 64, "context_length": 512}
    ollama.expect_request("/api/ps").respond_with_json({"models": [running]})
    replay(ollama, COMPLETIONS, "v1_chat_nostream")
    id = _create(client, system_prompt="Be brief.", model="x")

    answers = [
        client.post(CHAT, json={"message": f"{turn} " + "x" * 300, "conversation_id": id})
        for turn in range(8)
    ]

    sent = _sent(ollama)["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[1]["role"] == "user"
    assert sent[-1]["content"].startswith("7 ")
    last = answers[-1].json
    assert last is not None
    assert last["context"]["truncated"] is True
    assert last["context"]["dropped_messages"] == 16 - 2 - (len(sent) - 2)
    assert len(_messages(client, id)) == 16


def test_conversation_that_the_provider_finds_too_long_is_sent_shorter(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_handler(_only_short(5000))
    id = _create(client, model="x")

    found = [
        client.post(CHAT, json={"message": "x" * 1500, "conversation_id": id}).status_code for _ in range(6)
    ]

    assert found == [200] * 6


def test_message_that_alone_is_too_long_is_the_providers_error(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_handler(_only_short(5000))
    id = _create(client, model="x")

    response = client.post(CHAT, json={"message": "x" * 6000, "conversation_id": id})

    assert response.status_code == 400
    assert response.json["error_type"] == "upstream_rejected"  # type: ignore[index]


def test_tool_calls_are_kept_and_their_results_go_on(client: FlaskClient, ollama: HTTPServer) -> None:
    models = json.loads(recording("tags_models").body)
    for model in models["models"]:
        model["capabilities"] = ["completion", "tools"]
    ollama.expect_request("/api/tags").respond_with_json(models)
    replay(ollama, COMPLETIONS, "v1_chat_tool_call")
    id = _create(client, model="smollm2:135m")
    tools = [{"type": "function", "function": {"name": "get_time"}}]
    asked = client.post(CHAT, json={"message": "Time?", "conversation_id": id, "tools": tools}).json
    assert asked is not None
    result = {"role": "tool", "content": "12:00", "tool_call_id": asked["tool_calls"][0]["id"]}

    client.post(CHAT, json={"messages": [result], "conversation_id": id, "tools": tools})

    sent = _sent(ollama)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]


@pytest.mark.parametrize("id", ["nobody", "0" * 32])
def test_conversation_of_nobody_is_404(client: FlaskClient, id: str) -> None:
    response = client.post(CHAT, json={"message": "Hi", "conversation_id": id})

    assert response.status_code == 404
    assert response.json["error_type"] == "conversation_not_found"  # type: ignore[index]
    assert response.json["details"] == {"conversation_id": id}  # type: ignore[index]


@pytest.mark.parametrize("id", [5, "", "x" * 65, []])
def test_conversation_id_of_a_wrong_kind_is_400(client: FlaskClient, id: Any) -> None:
    response = client.post(CHAT, json={"message": "Hi", "conversation_id": id})

    assert response.status_code == 400
    assert "conversation_id" in response.json["details"]  # type: ignore[index]


def test_disabled_provider_leaves_the_conversation_as_it_was(client: FlaskClient) -> None:
    id = _create(client, provider="openai")

    response = client.post(CHAT, json={"message": "Hi", "conversation_id": id})

    assert response.status_code == 400
    assert _messages(client, id) == []


def test_calls_are_kept_with_their_outcome(app: Flask, client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_stream_include_usage")
    client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}, buffered=True)
    client.post(CHAT, json={"message": "Hi", "model": "bad:1b", "images": ["x"]})
    ollama.clear()
    client.post(CHAT, json={"message": "Hi", "model": "x"})
    app.extensions["services"].usage.close()

    usage = client.get("/api/usage").json

    assert usage is not None
    assert usage["totals"]["calls"] == 2
    assert usage["totals"]["failures"] == 1
    assert usage["totals"]["completion_tokens"] == 14


def test_answer_is_kept_before_the_client_knows(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_stream")
    id = _create(client, model="x")
    body = {"message": "One", "conversation_id": id, "stream": True}

    response = client.post(CHAT, json=body)
    chunks = iter(response.response)
    next(chunk for chunk in chunks if b"event: done" in chunk)
    status = _messages(client, id)[-1]["status"]
    response.close()

    assert status == "complete"


@pytest.mark.parametrize("stream", [False, True])
def test_answer_that_cannot_be_kept_is_given_all_the_same(
    client: FlaskClient, ollama: HTTPServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_stream" if stream else "v1_chat_nostream")
    id = _create(client, model="x")

    def fail(*_: object, **__: object) -> None:
        raise StorageFailed("The disk is gone.")

    monkeypatch.setattr(ConversationStore, "finish", fail)

    response = client.post(
        CHAT, json={"message": "One", "conversation_id": id, "stream": stream}, buffered=True
    )

    got = events(response) if stream else [("done", response.json)]
    assert [name for name, _ in got if name in {"done", "error"}] == ["done"]
    assert got[-1][1]["response"] == HELLO
    assert "will be saved" in got[-1][1]["notice"]


def test_naming_its_own_provider_keeps_the_conversations_model(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_nostream")
    id = _create(client, provider="ollama", model="qwen3")

    client.post(CHAT, json={"message": "One", "conversation_id": id, "provider": "ollama"})

    assert _sent(ollama)["model"] == "qwen3"


def test_conversation_of_another_provider_is_sent_shorter_too(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    httpserver.expect_request(COMPLETIONS).respond_with_handler(_only_short(5000))
    id = _create(client, provider="openai")

    found = [
        client.post(CHAT, json={"message": "x" * 1500, "conversation_id": id}).status_code for _ in range(6)
    ]

    assert found == [200] * 6


def test_what_is_refused_for_another_reason_is_not_sent_again(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_nostream")
    id = _create(client, model="x")
    for _ in range(4):
        client.post(CHAT, json={"message": "x" * 500, "conversation_id": id})
    ollama.clear()
    ollama.expect_request(COMPLETIONS).respond_with_json({"error": {"message": "no such thing"}}, status=400)

    client.post(CHAT, json={"message": "x", "conversation_id": id})

    assert len([request for request, _ in ollama.log if request.path == COMPLETIONS]) == 1

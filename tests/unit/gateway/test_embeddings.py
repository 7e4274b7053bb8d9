"""``POST /api/embeddings`` and ``/v1/embeddings``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from tests.conftest import replay

OURS = "/api/embeddings"
THEIRS = "/v1/embeddings"
Point = Callable[..., None]


def _answer(*vectors: list[float], order: tuple[int, ...] = ()) -> dict[str, Any]:
    entries = [
        {"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)
    ]
    data = [entries[index] for index in order] or entries
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return {"object": "list", "data": data, "model": "x", "usage": usage}


def _sent(server: HTTPServer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(server.log[-1][0].get_data())
    return body


def _tags(*models: tuple[str, str]) -> dict[str, Any]:
    entry = {"size": 1, "digest": "0" * 64, "modified_at": "2026-11-22T14:03:42Z"}
    return {"models": [{"name": name, "capabilities": [can], **entry} for name, can in models]}


@pytest.mark.parametrize(("texts", "vectors"), [("a", [[1.0, 2]]), (["a", "b"], [[1.0, 2], [3, -4.5]])])
def test_embeddings_come_in_the_order_of_the_texts(
    client: FlaskClient, ollama: HTTPServer, texts: Any, vectors: list[list[float]]
) -> None:
    order = tuple(reversed(range(len(vectors))))
    ollama.expect_request(THEIRS).respond_with_json(_answer(*vectors, order=order))

    response = client.post(OURS, json={"input": texts, "model": "nomic-embed-text", "dimensions": 2})

    assert response.status_code == 200
    answer = response.json
    assert answer is not None
    assert answer.pop("response_time") >= 0
    assert answer == {
        "embeddings": vectors,
        "provider": "ollama",
        "model": "nomic-embed-text",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
        "request_id": response.headers["X-Request-ID"],
    }
    assert _sent(ollama) == {
        "model": "nomic-embed-text",
        "input": [texts] if isinstance(texts, str) else texts,
        "dimensions": 2,
        "encoding_format": "float",
    }


def test_embeddings_of_another_provider_use_its_model(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai", model="text-embedding-3-small")
    httpserver.expect_request(THEIRS).respond_with_json({"data": _answer([1.0])["data"]})

    answer = client.post(OURS, json={"input": "a", "provider": "openai"}).json

    assert answer is not None
    assert (answer["provider"], answer["model"]) == ("openai", "text-embedding-3-small")
    assert answer["usage"] == {"prompt_tokens": None, "total_tokens": None}


def test_request_without_a_model_gets_one_that_embeds(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request("/api/tags").respond_with_json(
        _tags(("chatty:1b", "completion"), ("nomic-embed-text:latest", "embedding"))
    )
    ollama.expect_request(THEIRS).respond_with_json(_answer([1.0]))

    answer = client.post(OURS, json={"input": "a"}).json

    assert answer is not None
    assert answer["model"] == "nomic-embed-text:latest"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": ""},
        {"input": []},
        {"input": ["a", ""]},
        {"input": ["a", 5]},
        {"input": 5},
        {"input": ["a"] * 2049},
        {"input": "a", "dimensions": 0},
        {"input": "a", "dimensions": "2"},
        {"input": "a", "model": " "},
        {"input": "a", "model": "a\0b"},
        {"input": "a", "encoding_format": "base64"},
    ],
)
def test_bad_input_is_400(client: FlaskClient, ollama: HTTPServer, body: dict[str, Any]) -> None:
    response = client.post(OURS, json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "invalid_request"
    assert not ollama.log


BAD_ANSWERS: list[dict[str, Any]] = [
    {},
    {"data": None},
    {"data": []},
    _answer([1.0]),
    _answer([1.0], [2.0], [3.0]),
    _answer([1.0], []),
    _answer([1.0], ["2"]),  # type: ignore[list-item]
    _answer([1.0], [True]),
    {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
    {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
    {"data": ["x", "y"]},
]


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_answer_that_is_not_a_vector_for_each_text_is_an_error(
    client: FlaskClient, ollama: HTTPServer, answer: dict[str, Any]
) -> None:
    ollama.expect_request(THEIRS).respond_with_json(answer)

    response = client.post(OURS, json={"input": ["a", "b"], "model": "x"})

    assert response.status_code == 500
    assert response.json is not None
    assert response.json["error_type"] == "invalid_upstream_response"


@pytest.mark.parametrize("path", [OURS, THEIRS])
@pytest.mark.parametrize(
    ("recorded", "status", "code", "named"),
    [
        ("v1_embeddings", 400, "capability_missing", "nomic-embed-text:latest"),
        ("v1_embeddings_unknown", 404, "model_not_found", "smollm2:135m"),
    ],
)
def test_model_that_cannot_or_is_not_there_names_those_that_are(
    client: FlaskClient, ollama: HTTPServer, path: str, recorded: str, status: int, code: str, named: str
) -> None:
    replay(ollama, THEIRS, recorded)
    ollama.expect_request("/api/tags").respond_with_json(
        _tags(("smollm2:135m", "completion"), ("nomic-embed-text:latest", "embedding"))
    )

    response = client.post(path, json={"input": "hello", "model": "smollm2:135m"})

    assert response.status_code == status
    body = response.json
    assert body is not None
    if path == THEIRS:
        assert (body["error"]["code"], body["error"]["param"]) == (code, "model")
        assert named in body["error"]["message"]
    else:
        assert body["error_type"] == code
        assert named in body["hint"]


def test_no_model_that_embeds_is_a_missing_capability(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request("/api/tags").respond_with_json(_tags(("smollm2:135m", "completion")))

    response = client.post(OURS, json={"input": "hello"})

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "capability_missing"
    assert "pull" in response.json["hint"]


@pytest.mark.parametrize(("asked", "sent"), [({}, "float"), ({"encoding_format": "base64"}, "base64")])
def test_vectors_of_v1_come_as_they_are_asked_for(
    client: FlaskClient, ollama: HTTPServer, asked: dict[str, str], sent: str
) -> None:
    body = json.dumps(_answer([1.0])) + " "
    ollama.expect_request(THEIRS).respond_with_data(body, content_type="application/json")

    response = client.post(THEIRS, json={"input": [[1, 2]], "model": "x", "stream": True, **asked})

    assert response.text == body
    assert _sent(ollama) == {
        "model": "x",
        "input": [[1, 2]],
        "stream": True,
        "encoding_format": sent,
    }

"""``/v1/models``: one list of what all providers have."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from tests.conftest import replay
from tests.raw_server import Connection, raw_server

Point = Callable[..., None]


@pytest.fixture
def providers(httpserver: HTTPServer, point: Point) -> HTTPServer:
    """Ollama, and two others that have models."""
    point(httpserver.url_for("/v1"))
    replay(httpserver, "/api/tags", "tags_models")
    offered = {"openai": ["gpt-4o", "o3"], "openrouter": ["openai/gpt-4o", "qwen/qwen3"]}
    for id, names in offered.items():
        point(httpserver.url_for(f"/{id}/v1"), id)
        data = [{"id": name, "object": "model", "created": 7, "owned_by": "them"} for name in names]
        httpserver.expect_request(f"/{id}/v1/models").respond_with_json({"object": "list", "data": data})
    return httpserver


def _ids(client: FlaskClient) -> list[str]:
    response = client.get("/v1/models")
    assert response.status_code == 200
    body = response.json
    assert body is not None
    assert body["object"] == "list"
    assert all(set(entry) == {"id", "object", "created", "owned_by"} for entry in body["data"])
    return [entry["id"] for entry in body["data"]]


@pytest.mark.parametrize(
    ("default", "bare", "prefixed"),
    [
        ("ollama", {"llama3.2:1b", "smollm2:135m"}, {"openai/gpt-4o", "openrouter/openai/gpt-4o"}),
        ("openai", {"gpt-4o", "o3"}, {"ollama/smollm2:135m", "openrouter/qwen/qwen3"}),
        ("openrouter", {"qwen/qwen3"}, {"openrouter/openai/gpt-4o", "openai/gpt-4o", "ollama/llama3.2:1b"}),
    ],
)
def test_models_of_the_default_provider_are_bare_and_others_have_its_id(
    client: FlaskClient, providers: HTTPServer, default: str, bare: set[str], prefixed: set[str]
) -> None:
    client.put("/api/settings", json={"default_provider": default})

    ids = _ids(client)

    assert bare | prefixed <= set(ids)
    assert len(ids) == 6


def test_every_model_that_is_listed_can_be_shown(client: FlaskClient, providers: HTTPServer) -> None:
    client.put("/api/settings", json={"default_provider": "openrouter"})
    listed = client.get("/v1/models").json
    assert listed is not None

    for entry in listed["data"]:
        response = client.get(f"/v1/models/{entry['id']}")

        assert response.status_code == 200
        assert response.json == entry


def test_model_of_ollama_says_when_it_came_and_from_whom(client: FlaskClient, providers: HTTPServer) -> None:
    shown = client.get("/v1/models/SmolLM2:135m").json

    assert shown == {
        "id": "SmolLM2:135m",
        "object": "model",
        "created": 1795356141,
        "owned_by": "library",
    }


@pytest.mark.parametrize("name", ["nope", "openai/nope", "nobody/nope", "openrouter/gpt-4o"])
def test_unknown_model_is_404(client: FlaskClient, providers: HTTPServer, name: str) -> None:
    response = client.get(f"/v1/models/{name}")

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error"]["code"] == "model_not_found"
    assert response.json["error"]["param"] == "model"


def test_nothing_installed_is_an_empty_list(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, "/api/tags", "tags_empty")

    assert _ids(client) == []


def test_provider_that_fails_is_left_out(
    client: FlaskClient, providers: HTTPServer, httpserver: HTTPServer, point: Point
) -> None:
    point("http://127.0.0.1:9/v1", "groq")
    point(httpserver.url_for("/junk/v1"), "vllm")
    httpserver.expect_request("/junk/v1/models").respond_with_data("<html>")

    assert len(_ids(client)) == 6


def test_provider_that_does_not_answer_is_left_out(
    client: FlaskClient, providers: HTTPServer, point: Point
) -> None:
    client.put("/api/settings", json={"timeouts": {"list": 0.5}})
    hung_up = threading.Event()

    def say_nothing(connection: Connection) -> None:
        connection.wait_for_close()
        hung_up.set()

    with raw_server(say_nothing) as server:
        point(f"{server.url}/v1", "groq")

        assert len(_ids(client)) == 6
        assert hung_up.wait(5)

"""Each kind of provider answers the same questions about its models."""

from __future__ import annotations

from typing import Any

import pytest
import responses
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from app.container import Services
from app.errors import CapabilityMissing, InvalidModelName, InvalidRequest, ModelNotFound
from app.services.catalog.offers import ProviderOffers
from tests.unit.updates.test_api import OLLAMA

NEWER, OLDER = "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"


def _listed(name: str, modified_at: str, *capabilities: str) -> dict[str, Any]:
    entry = {"name": name, "size": 1, "digest": "0" * 64, "modified_at": modified_at}
    return {**entry, "capabilities": capabilities}


@pytest.fixture
def ollama(client: FlaskClient, app: Flask, wire: responses.RequestsMock) -> ProviderOffers:
    """The models of an Ollama server that is not the provider `ollama`."""
    body = {"id": "gpu", "kind": "ollama", "base_url": f"{OLLAMA}/v1", "enabled": True}
    assert client.post("/api/providers", json=body).status_code == 201
    models = [
        _listed("embedder:1", NEWER, "embedding"),
        _listed("me/plain:1", NEWER, "completion"),
        _listed("handy:1", OLDER, "completion", "tools"),
    ]
    wire.get(f"{OLLAMA}/api/tags", json={"models": models})
    return _offers(app, "gpu")


@pytest.fixture
def openai(client: FlaskClient, app: Flask, httpserver: HTTPServer) -> ProviderOffers:
    """The models of an OpenAI-compatible provider."""
    body = {"id": "other", "base_url": httpserver.url_for("/v1"), "enabled": True}
    assert client.post("/api/providers", json=body).status_code == 201
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "Big"}, {"id": "small"}]})
    return _offers(app, "other")


def _offers(app: Flask, id: str) -> ProviderOffers:
    services: Services = app.extensions["services"]
    return services.offers.of(services.providers.get(id))


def test_ollama_lists_what_is_installed(client: FlaskClient, ollama: ProviderOffers) -> None:
    answer: Any = client.get("/api/providers/gpu/models").json

    assert answer["total"] == 3
    assert answer["models"][1] == {
        "id": "me/plain:1", "name": "me/plain:1", "created": 1769904000, "owned_by": "me",
    }  # fmt: skip
    assert ollama.find("ME/Plain:1")["id"] == "me/plain:1"
    with pytest.raises(ModelNotFound):
        ollama.find("absent")
    with pytest.raises(InvalidModelName):
        ollama.find("not a name")


def test_ollama_chooses_by_what_the_models_can_do(ollama: ProviderOffers) -> None:
    assert ollama.for_chat(frozenset()) == "me/plain:1"
    assert ollama.for_chat({"tools"}) == "handy:1"
    assert ollama.for_chat({"vision"}) == "me/plain:1"
    assert ollama.default("embeddings") == "embedder:1"
    assert ollama.default("chat/completions") == "me/plain:1"
    assert ollama.lacking("ME/plain:1", {"tools", "vision"}) == (["tools", "vision"], [])
    assert ollama.lacking("me/plain:1", {"tools"}) == (["tools"], ["handy:1"])
    assert ollama.lacking("absent:1", {"tools"}) == ([], [])


def test_openai_lists_what_the_provider_does(client: FlaskClient, openai: ProviderOffers) -> None:
    answer: Any = client.get("/api/providers/other/models").json

    assert answer == {"models": [{"id": "Big", "name": "Big"}, {"id": "small", "name": "small"}], "total": 2}
    assert openai.find("Big")["id"] == "Big"
    with pytest.raises(ModelNotFound) as absent:
        openai.find("big")
    assert absent.value.details == {"model": "big", "available": ["Big", "small"]}


def test_openai_takes_the_configured_model_or_the_first(openai: ProviderOffers) -> None:
    assert openai.for_chat({"tools"}) == "Big"
    assert openai.lacking("Big", {"tools"}) == ([], [])
    with pytest.raises(InvalidRequest, match="Model is required"):
        openai.default("chat/completions")


def test_refusal_is_explained_by_the_list(openai: ProviderOffers) -> None:
    refusal = ModelNotFound("404")

    assert isinstance(openai.explain(refusal, "Big", "embeddings"), CapabilityMissing)
    assert isinstance(openai.explain(refusal, "huge", "embeddings"), ModelNotFound)
    assert openai.explain(InvalidRequest("other"), "Big", "embeddings") is None

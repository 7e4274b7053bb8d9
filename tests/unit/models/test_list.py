"""The list of models: filtered, sorted, with an ETag, and the last known one when Ollama is down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from app.config import Config
from tests.wire import replay

BASE = "http://localhost:11434"
MODELS = "/api/providers/ollama/models"


def _names(client: FlaskClient, query: str) -> list[str]:
    answer = client.get(f"{MODELS}?{query}").json
    assert answer is not None
    assert answer["total"] == len(answer["models"])
    return [model["name"] for model in answer["models"]]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sort=name", ["llama3.2:1b", "smollm2:135m"]),
        ("sort=-name", ["smollm2:135m", "llama3.2:1b"]),
        ("sort=modified_at", ["smollm2:135m", "llama3.2:1b"]),
        ("sort=-modified_at", ["llama3.2:1b", "smollm2:135m"]),
        ("sort=size", ["llama3.2:1b", "smollm2:135m"]),
        ("capability=completion", ["llama3.2:1b", "smollm2:135m"]),
        ("capability=tools", []),
    ],
)
def test_list_models_filters_and_sorts(
    client: FlaskClient, wire: responses.RequestsMock, query: str, names: list[str]
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    found = _names(client, query)

    assert found == names


@pytest.mark.parametrize(
    ("query", "names"), [("loaded=true", ["smollm2:135m"]), ("loaded=false", ["llama3.2:1b"])]
)
def test_list_models_by_loaded_says_so_of_each(
    client: FlaskClient, wire: responses.RequestsMock, query: str, names: list[str]
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")

    models = client.get(f"{MODELS}?{query}").json["models"]  # type: ignore[index]

    assert [(model["name"], model["loaded"]) for model in models] == [(names[0], query == "loaded=true")]


def test_list_models_by_capability_asks_an_older_ollama_for_each(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    model = {"name": "tooly:latest", "size": 1, "modified_at": "2024-05-04T14:56:49Z", "digest": "a" * 64}
    gone = {**model, "name": "gone:latest"}
    wire.get(f"{BASE}/api/tags", json={"models": [model, gone]})
    replay(wire, "POST", BASE + "/api/show", "show_tools_model")
    replay(wire, "POST", BASE + "/api/show", "show_unknown_404")

    found = _names(client, "capability=tools")

    assert found == ["tooly:latest"]


@pytest.mark.parametrize(
    "query", ["sort=age", "stale=yes", "loaded=maybe", "capability=", "nope=1", "sort=name&nope=1"]
)
def test_list_models_with_a_bad_query_is_400(
    client: FlaskClient, wire: responses.RequestsMock, query: str
) -> None:
    response = client.get(f"{MODELS}?{query}")

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "invalid_request"
    assert len(wire.calls) == 0


def test_list_models_is_304_until_it_changes(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/tags", "tags_empty")
    etag = client.get(MODELS).headers["ETag"]

    same = client.get(MODELS, headers={"If-None-Match": etag})
    changed = client.get(MODELS, headers={"If-None-Match": etag})

    assert etag.startswith("W/")
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert (changed.status_code, changed.json) == (200, {"models": [], "total": 0})


DOWN = [
    pytest.param(requests.ConnectionError(), 503, id="down"),
    pytest.param(requests.ReadTimeout(), 504, id="slow"),
]


@pytest.mark.parametrize(("fault", "status"), DOWN)
def test_list_models_without_ollama_is_the_last_known_list_where_that_will_do(
    client: FlaskClient, wire: responses.RequestsMock, fault: Exception, status: int
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    fresh = client.get(MODELS).json
    wire.replace("GET", f"{BASE}/api/tags", body=fault)

    stale = client.get(f"{MODELS}?stale=ok&sort=name")
    unasked = client.get(MODELS)
    loaded = client.get(f"{MODELS}?stale=ok&loaded=true")

    assert stale.status_code == 200
    assert stale.json is not None
    assert fresh is not None
    assert stale.json["models"] == fresh["models"]
    assert stale.json["stale"] is True
    assert stale.json["age_seconds"] >= 0
    assert stale.json["as_of"].endswith("Z")
    assert (unasked.status_code, loaded.status_code) == (status, status)


def test_stale_list_counts_its_age_from_the_last_answer(
    client: FlaskClient, wire: responses.RequestsMock, config: Config
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    kept = config.data_dir / "models.json"
    client.get(MODELS)
    os.utime(kept, (1_000_000_000, 1_000_000_000))
    before = kept.stat().st_ino
    client.get(MODELS)
    confirmed = kept.stat()
    os.utime(kept, (1_000_000_000, 1_000_000_000))
    wire.replace("GET", f"{BASE}/api/tags", body=requests.ConnectionError())

    stale = client.get(f"{MODELS}?stale=ok").json

    assert confirmed.st_mtime > 1_700_000_000  # an answer like the last one renews it
    assert confirmed.st_ino == before  # without writing it again
    assert stale is not None
    assert stale["as_of"] == "2001-09-09T01:46:40Z"
    assert stale["age_seconds"] > 700_000_000


@pytest.mark.parametrize("kept", [None, "{damaged", json.dumps({"url": BASE, "models": [{}]})])
def test_stale_list_that_is_not_there_is_503(
    client: FlaskClient, wire: responses.RequestsMock, config: Config, kept: str | None
) -> None:
    if kept:
        (config.data_dir / "models.json").write_text(kept)
    wire.get(f"{BASE}/api/tags", body=requests.ConnectionError())

    response = client.get(f"{MODELS}?stale=ok")

    assert response.status_code == 503


def test_stale_list_of_another_ollama_is_not_given(
    client: FlaskClient, wire: responses.RequestsMock, point: Callable[..., None]
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    client.get(MODELS)
    point("http://localhost:1/v1")
    wire.get("http://localhost:1/api/tags", body=requests.ConnectionError())

    response = client.get(f"{MODELS}?stale=ok")

    assert response.status_code == 503


def test_list_models_does_not_fail_because_it_cannot_be_kept(
    client: FlaskClient, wire: responses.RequestsMock, config: Config
) -> None:
    (config.data_dir / "models.json").mkdir()
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.get(MODELS)

    assert response.status_code == 200


def test_plain_list_has_no_further_fields(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    answer: Any = client.get(MODELS).json

    assert set(answer) == {"models", "total"}
    assert set(answer["models"][0]) == {"name", "size", "modified_at", "digest", "details", "capabilities"}

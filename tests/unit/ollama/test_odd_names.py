"""A model whose listed name no grammar allows costs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import responses
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidModelName
from app.model_name import ModelName
from app.services.ollama.names import check_name, find_model, key_of, parse_listed
from tests.unit.updates.test_api import API, OLD, OLLAMA, digest
from tests.unit.updates.test_api import remote as remote  # a fixture

STAMP = "2026-01-01T00:00:00Z"
ODD_NAMES = [
    pytest.param("odd name:latest", id="space"),
    pytest.param("", id="empty"),
    pytest.param("x" * 400, id="long"),
    pytest.param("a/b/c/d:1", id="parts"),
    pytest.param("ä:1", id="letter"),
]


@pytest.fixture(params=ODD_NAMES)
def odd(request: pytest.FixtureRequest, remote: responses.RequestsMock) -> str:
    """The name of a model that the same Ollama lists too, and that nobody could have typed."""
    name: str = request.param
    entry = {"name": name, "size": 3, "digest": "0" * 64, "modified_at": STAMP}
    other = {"name": "a:1", "size": 12, "digest": digest(OLD)[7:], "modified_at": STAMP}
    loaded = {**entry, "size_vram": 0, "expires_at": "2027-01-01T00:00:00Z"}
    remote.replace(responses.GET, f"{OLLAMA}/api/tags", json={"models": [entry, other]})
    remote.replace(responses.GET, f"{OLLAMA}/api/ps", json={"models": [loaded]})
    return name


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("get", "/models", None, 200),
        ("get", "/models?loaded=false", None, 200),
        ("get", "/running", None, 200),
        ("get", "/disk", None, 200),
        ("get", "/updates", None, 200),
        ("post", "/updates", {"all": True, "dry_run": True}, 200),
        ("post", "/updates", {"models": ["a:1"], "dry_run": True}, 200),
        ("post", "/rollback", {"model": "a:1"}, 404),
        ("post", "/pull", {"model": "a:1", "dry_run": True}, 200),
        ("delete", "/models/a:1?dry_run=true", None, 200),
    ],
)
def test_odd_listed_name_does_not_break(
    client: FlaskClient, odd: str, method: str, path: str, body: Any, status: int
) -> None:
    response = getattr(client, method)(f"{API}{path}", **({"json": body} if body else {}))

    assert response.status_code == status, response.text


def test_other_models_are_loaded_copied_and_deleted(
    client: FlaskClient, remote: responses.RequestsMock, odd: str
) -> None:
    remote.post(f"{OLLAMA}/api/generate", json={"done": True})
    remote.post(f"{OLLAMA}/api/copy")
    remote.delete(f"{OLLAMA}/api/delete")

    loaded: Any = client.post(f"{API}/load", json={"model": "a:1"}).json
    copied: Any = client.post(f"{API}/copy", json={"source": "a:1", "destination": "b:1"}).json
    deleted: Any = client.delete(f"{API}/models/a:1").json

    assert loaded["model"] == "a:1"
    assert copied == {"source": "a:1", "destination": "b:1", "copied": True}
    assert (deleted["deleted"], deleted["freed_bytes"]) == (True, 12)


def test_odd_model_is_listed_where_it_can_be_seen(client: FlaskClient, odd: str) -> None:
    listing: Any = client.get(f"{API}/models?loaded=true").json
    running: Any = client.get(f"{API}/running").json
    disk: Any = client.get(f"{API}/disk").json
    updates: Any = client.get(f"{API}/updates").json
    result: Any = client.post(f"{API}/updates", json={"all": True, "dry_run": True}).json

    assert [model["name"] for model in listing["models"]] == [odd]
    assert [model["name"] for model in running["models"]] == [odd]
    taken = {model["model"]: model["size"] for model in disk["models"]}
    assert taken == {odd: 3, "a:1": 12}
    statuses = {model["model"]: (model["status"], bool(model.get("reason"))) for model in updates["models"]}
    assert statuses == {odd: ("unknown", True), "a:1": ("outdated", False)}
    assert [model["model"] for model in result["started"]] == ["a:1"]
    assert result["skipped"] == [{"model": odd, "reason": "unknown"}]


def test_plain_model_beside_an_odd_one_is_offered_and_chosen(
    client: FlaskClient, odd: str, remote: responses.RequestsMock
) -> None:
    listing: Any = client.get("/v1/models").json

    assert [entry["owned_by"] for entry in listing["data"]] == ["library", "library"]
    assert client.get("/v1/models/a:1").status_code == 200


@pytest.mark.parametrize("call", [check_name, lambda name: check_name(name.upper())])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_cannot_be_typed(name: str, call: Callable[[str], ModelName]) -> None:
    for _ in range(2):  # the second time is no other than the first
        with pytest.raises(InvalidModelName):
            call(name)


@given(st.text(max_size=30), st.text(max_size=30))
def test_keys_are_the_same_for_the_same_name_only(one: str, other: str) -> None:
    names = parse_listed(one), parse_listed(other)

    is_same = names[0].key == names[1].key if names[0] and names[1] else one == other

    assert (key_of(one) == key_of(other)) is is_same


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_is_found_by_itself(name: str) -> None:
    models = [{"name": "a:1"}, {"name": name}]

    assert find_model(models, name) == {"name": name}
    assert find_model(models, "A:1") == {"name": "a:1"}
    assert find_model(models, "other") is None

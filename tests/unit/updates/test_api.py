"""Plans, updates and the disk over HTTP, where Ollama's folder is on another machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from app.manifest import MANIFEST_TYPE
from app.services.models.versions import VersionStore
from app.services.ollama.names import key_of
from app.storage.database import KeptVersion

OLLAMA = "http://gpu.test:11434"
REGISTRY = "https://registry.ollama.ai/v2/library"
API = "/api/providers/ollama"
IMAGE = "application/vnd.ollama.image."
CONFIG = "application/vnd.docker.container.image.v1+json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest(*layers: tuple[str, bytes]) -> bytes:
    entries = [
        {"mediaType": IMAGE + kind, "digest": digest(text), "size": len(text)} for kind, text in layers
    ]
    config = {"mediaType": CONFIG, "digest": digest(b"{}"), "size": 2}
    return json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": entries}
    ).encode()


OLD = manifest(("model", b"weights"), ("template", b"old"))
NEW = manifest(("model", b"weights"), ("template", b"newer"))


@pytest.fixture
def remote(client: FlaskClient, wire: responses.RequestsMock) -> responses.RequestsMock:
    """An Ollama on another machine with the model a:1 as it was; the registry has a newer one."""
    client.patch(API, json={"base_url": f"{OLLAMA}/v1", "enabled": True})
    listed = {"name": "a:1", "size": 12, "digest": digest(OLD)[7:], "modified_at": "2026-01-01T00:00:00Z"}
    wire.assert_all_requests_are_fired = False
    wire.get(f"{OLLAMA}/api/tags", json={"models": [listed]})
    wire.get(f"{OLLAMA}/api/ps", json={"models": []})
    wire.get(f"{REGISTRY}/a/manifests/1", NEW, content_type=MANIFEST_TYPE)
    for layer in (b"{}", b"weights"):
        wire.head(f"{OLLAMA}/api/blobs/{digest(layer)}", status=200)
    wire.head(f"{OLLAMA}/api/blobs/{digest(b'newer')}", status=404)
    wire.get(f"{REGISTRY}/a/blobs/{digest(b'weights')}", b"weights", status=206)
    wire.get(f"{REGISTRY}/a/blobs/{digest(b'{}')}", b"{}")
    return wire


def test_dry_run_asks_ollama_for_what_is_there(client: FlaskClient, remote: responses.RequestsMock) -> None:
    plan: Any = client.post(f"{API}/pull", json={"model": "a:1", "dry_run": True}).json

    assert plan["download_bytes"] == len(b"newer")
    assert (plan["installed"], plan["current"]) == (True, False)
    assert plan["disk"] is None
    assert plan["memory"] == {
        "needed_bytes": 8, "num_ctx": 4096, "available_bytes": None, "fits": None, "estimated": True,
    }  # fmt: skip


def test_updates_without_the_folder_name_what_is_missing(
    client: FlaskClient, remote: responses.RequestsMock
) -> None:
    updates: Any = client.get(f"{API}/updates").json

    found = updates["models"][0]
    assert (found["status"], found["changed"], found["download_bytes"]) == ("outdated", ["template"], 5)
    assert (updates["total"], updates["outdated"]) == (1, 1)
    assert updates["checked_at"].endswith("Z")


def test_registry_is_asked_again_after_a_failure_and_not_after_an_answer(
    client: FlaskClient, remote: responses.RequestsMock
) -> None:
    url = f"{REGISTRY}/a/manifests/1"
    remote.replace("GET", url, body=requests.ConnectionError("refused"))
    down: Any = client.get(f"{API}/updates").json
    remote.replace("GET", url, body=NEW, content_type=MANIFEST_TYPE)

    answers = [client.get(f"{API}/updates").json for _ in range(3)]
    refreshed = client.get(f"{API}/updates?refresh=true").json

    assert down["models"][0]["status"] == "unknown"
    assert "registry.ollama.ai" in down["models"][0]["reason"]
    assert all(answer == answers[0] for answer in answers)
    assert refreshed is not None
    assert sum(call.request.url == url for call in remote.calls) == 3


@pytest.mark.parametrize(
    ("listed", "status"), [("a:cloud", "cloud"), ("a:120b-Cloud", "cloud"), ("evil.test/b/c:1", "unknown")]
)
def test_registries_are_not_asked_for_cloud_models_and_foreign_hosts(
    client: FlaskClient, remote: responses.RequestsMock, listed: str, status: str
) -> None:
    entry = {"name": listed, "size": 1, "digest": "0" * 64, "modified_at": "2026-01-01T00:00:00Z"}
    remote.replace("GET", f"{OLLAMA}/api/tags", json={"models": [entry]})

    updates: Any = client.get(f"{API}/updates").json

    assert updates["models"][0]["status"] == status
    assert updates["models"][0]["reason"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("pull", {"model": "a:1", "num_ctx": 5}, "num_ctx"),
        ("pull", {"model": "a:1", "dry_run": True, "num_ctx": 0}, "num_ctx"),
        ("pull", {"model": "a:1", "dry_run": True, "stream": True}, "stream"),
        ("pull", {"model": "a:1", "dry_run": "yes"}, "dry_run"),
        ("pull", {"model": "a:1", "force": 1}, "force"),
        ("updates", {}, "models"),
        ("updates", {"all": False}, "models"),
        ("updates", {"models": []}, "models"),
        ("updates", {"models": ["a:1"], "all": True}, "models"),
        ("updates", {"models": [" "]}, "models"),
        ("rollback", {}, "model"),
    ],
)
def test_bad_input_is_400_and_names_the_field(
    client: FlaskClient, path: str, body: dict[str, Any], field: str
) -> None:
    response = client.post(f"{API}/{path}", json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert field in response.json["details"]


@pytest.mark.parametrize("query", ["nope=1", "refresh=maybe", "refresh=true&Refresh=true"])
def test_updates_refuse_a_query_that_they_do_not_know(client: FlaskClient, query: str) -> None:
    assert client.get(f"{API}/updates?{query}").status_code == 400


def test_rollback_is_refused_while_the_model_is_pulled(
    client: FlaskClient, remote: responses.RequestsMock
) -> None:
    services = client.application.extensions["services"]
    row = KeptVersion(name="a:1-prev-1", model="a:1", key=key_of("a:1"), digest="old", status="kept")
    VersionStore(services.database).save(row)
    pull = services.pull_store.join("a:1", key_of("a:1"), insecure=False)
    services.pull_store.claim(pull.id, "a worker", 1)

    response = client.post(f"{API}/rollback", json={"model": "A:1"})

    assert response.status_code == 409
    assert response.json is not None
    assert response.json["error_type"] == "pull_active"
    assert response.json["details"]["id"] == pull.id
    assert not any(call.request.path_url == "/api/copy" for call in remote.calls)


@pytest.mark.parametrize("path", ["updates", "rollback"])
def test_name_that_is_none_is_refused(client: FlaskClient, remote: responses.RequestsMock, path: str) -> None:
    body = {"models": ["a b"]} if path == "updates" else {"model": "a b"}

    response = client.post(f"{API}/{path}", json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "invalid_model_name"


@pytest.mark.parametrize(
    "body",
    [
        {"updates": {"time": "24:00"}},
        {"updates": {"time": "3:00"}},
        {"updates": {"window": {"from": "01:00"}}},
        {"updates": {"window": {"from": "01:00", "to": "x"}}},
        {"updates": {"enabled": 1}},
        {"pinned_models": ["a b"]},
        {"keep_versions": -1},
        {"keep_versions": 11},
    ],
)
def test_bad_settings_for_updates_are_400(client: FlaskClient, body: dict[str, Any]) -> None:
    assert client.put("/api/settings", json=body).status_code == 400


def test_settings_for_updates_are_changed_one_by_one(client: FlaskClient) -> None:
    client.put("/api/settings", json={"updates": {"window": {"from": "22:00", "to": "05:00"}}})

    changed: Any = client.put("/api/settings", json={"updates": {"enabled": True}, "keep_versions": 2}).json

    assert changed["updates"] == {
        "enabled": True,
        "time": "03:00",
        "window": {"from": "22:00", "to": "05:00"},
        "skip_loaded": True,
    }
    assert (changed["keep_versions"], changed["pinned_models"]) == (2, [])

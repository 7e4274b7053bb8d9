"""Deleting models, and what that frees on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from app import create_app
from app.config import Config
from app.services.models.versions import VersionStore
from app.services.ollama.names import key_of
from app.storage.database import KeptVersion
from tests.models_folder import Folder
from tests.registry import digest_of
from tests.wire import replay

BASE = "http://localhost:11434"
MODELS = "/api/providers/ollama/models"
WEIGHTS, CONFIG, SYSTEM = b"weights" * 1000, b"{}", b"You are a pirate."


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "models")


@pytest.fixture
def local_client(config: Config, folder: Folder) -> Iterator[FlaskClient]:
    """A backend that knows where Ollama keeps its models."""
    app = create_app(replace(config, environ={"OLLAMA_MODELS": str(folder.path)}))
    yield app.test_client()
    app.extensions["services"].close()


def test_delete_frees_only_what_no_other_model_uses(
    local_client: FlaskClient, wire: responses.RequestsMock, folder: Folder
) -> None:
    base = folder.add("base:latest", CONFIG, WEIGHTS)
    pirate = folder.add("pirate:latest", CONFIG, WEIGHTS, SYSTEM)
    wire.get(f"{BASE}/api/tags", json={"models": [base, pirate]})
    replay(wire, "GET", BASE + "/api/ps", "ps_none")

    def delete(_: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        folder.manifest("pirate:latest").unlink()
        folder.blob(SYSTEM).unlink()
        return 200, {}, ""

    wire.add_callback("DELETE", f"{BASE}/api/delete", delete)

    response = local_client.delete(f"{MODELS}/Pirate")

    assert response.status_code == 200
    assert response.json == {
        "model": "pirate:latest",
        "deleted": True,
        "dry_run": False,
        "freed_bytes": len(SYSTEM),
        "shared_bytes": len(WEIGHTS) + len(CONFIG),
        "deleted_versions": [],
        "kept_versions": [],
        "estimated": False,
        "layers": [
            {
                "digest": digest_of(content),
                "size": len(content),
                "media_type": "application/x",
                "freed": freed,
            }
            for content, freed in [(CONFIG, False), (WEIGHTS, False), (SYSTEM, True)]
        ],
    }
    assert wire.calls[-1].request.body == b'{"model": "pirate:latest"}'


def test_delete_counts_what_is_really_gone(
    local_client: FlaskClient, wire: responses.RequestsMock, folder: Folder
) -> None:
    wire.get(f"{BASE}/api/tags", json={"models": [folder.add("base:latest", CONFIG, WEIGHTS)]})
    replay(wire, "GET", BASE + "/api/ps", "ps_none")
    replay(wire, "DELETE", BASE + "/api/delete", "delete_ok")

    expected: Any = local_client.delete(f"{MODELS}/base?dry_run=true").json
    answer: Any = local_client.delete(f"{MODELS}/base").json

    assert expected["freed_bytes"] == len(WEIGHTS) + len(CONFIG)
    assert (expected["deleted"], expected["dry_run"]) == (False, True)
    assert answer["freed_bytes"] == 0  # this Ollama kept the layers
    assert answer["deleted"] is True


@pytest.mark.parametrize(
    ("listed", "freed", "shared"),
    [("tags_models", 98362745, 0), ("tags_during_pull", 0, 98362745)],
    ids=["alone", "with an alias"],
)
def test_delete_is_estimated_where_the_folder_is_elsewhere(
    client: FlaskClient, wire: responses.RequestsMock, listed: str, freed: int, shared: int
) -> None:
    replay(wire, "GET", BASE + "/api/tags", listed)

    response = client.delete(f"{MODELS}/smollm2:135m?dry_run=true")

    assert response.json == {
        "model": "smollm2:135m",
        "deleted": False,
        "dry_run": True,
        "freed_bytes": freed,
        "shared_bytes": shared,
        "deleted_versions": [],
        "kept_versions": [],
        "estimated": True,
    }


def test_delete_unloads_first(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")
    replay(wire, "POST", BASE + "/api/generate", "unload_generate_keep_alive_0")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")
    replay(wire, "GET", BASE + "/api/ps", "ps_after_unload")
    replay(wire, "DELETE", BASE + "/api/delete", "delete_loaded_model")

    response = client.delete(f"{MODELS}/smollm2:135m")

    assert response.status_code == 200
    assert [call.request.path_url for call in wire.calls] == [
        "/api/tags", "/api/ps", "/api/generate", "/api/ps", "/api/ps", "/api/delete",
    ]  # fmt: skip


def test_delete_of_an_unknown_model_is_404(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.delete(f"{MODELS}/nope")

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["details"]["available"] == ["llama3.2:1b", "smollm2:135m"]


@pytest.mark.parametrize("path", ["bad name", "a:b:c", "a?dry_run=maybe", "a?nope=1"])
def test_delete_of_bad_input_is_400_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, path: str
) -> None:
    response = client.delete(f"{MODELS}/{path}")

    assert response.status_code == 400
    assert len(wire.calls) == 0


PROTECTED = ["LIBRARY/SmolLM2:135M", "registry.ollama.ai/library/base:latest"]


@pytest.mark.parametrize("path", ["smollm2:135m", "SMOLLM2:135m?dry_run=true", "library/base"])
def test_delete_of_a_protected_model_is_409_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, path: str
) -> None:
    client.put("/api/settings", json={"protected_models": PROTECTED})

    response = client.delete(f"{MODELS}/{path}")

    assert response.status_code == 409
    assert response.json is not None
    assert response.json["error_type"] == "model_protected"
    assert "PUT /api/settings" in response.json["hint"]
    assert len(wire.calls) == 0


def test_protected_models_are_names(client: FlaskClient) -> None:
    refused = client.put("/api/settings", json={"protected_models": ["a b"]})
    kept: Any = client.put("/api/settings", json={"protected_models": ["a:1"]}).json

    assert refused.status_code == 400
    assert kept["protected_models"] == ["a:1"]


FORMER = "base:latest-prev-0123456789ab"


@pytest.fixture
def updated(
    local_client: FlaskClient, wire: responses.RequestsMock, folder: Folder
) -> responses.RequestsMock:
    """An Ollama with a model whose former version is kept, and another whose copy is gone."""
    store = VersionStore(local_client.application.extensions["services"].database)
    for name in (FORMER, "base:latest-prev-ffffffffffff"):
        row = KeptVersion(name=name, model="base:latest", key=key_of("base"), digest="", status="kept")
        store.save(row)
    models = [folder.add("base:latest", CONFIG, WEIGHTS), folder.add(FORMER, CONFIG, SYSTEM)]
    wire.get(f"{BASE}/api/tags", json={"models": models})
    wire.assert_all_requests_are_fired = False
    replay(wire, "GET", BASE + "/api/ps", "ps_none")
    replay(wire, "DELETE", BASE + "/api/delete", "delete_ok")
    return wire


def test_delete_names_the_former_version_that_stays(
    local_client: FlaskClient, updated: responses.RequestsMock
) -> None:
    answer: Any = local_client.delete(f"{MODELS}/base").json

    assert (answer["deleted_versions"], answer["kept_versions"]) == ([], [FORMER])
    updated.assert_call_count(f"{BASE}/api/delete", 1)


def test_delete_with_its_versions_deletes_them_all_and_forgets_them(
    local_client: FlaskClient, updated: responses.RequestsMock
) -> None:
    told: Any = local_client.delete(f"{MODELS}/base?versions=true&dry_run=true").json
    answer: Any = local_client.delete(f"{MODELS}/base?versions=true").json

    deleted = [call.request.body for call in updated.calls if call.request.method == "DELETE"]
    store = VersionStore(local_client.application.extensions["services"].database)
    assert (told["deleted_versions"], told["kept_versions"]) == ([FORMER], [])
    assert told["freed_bytes"] == len(CONFIG) + len(WEIGHTS) + len(SYSTEM)
    assert answer["deleted_versions"] == [FORMER]
    assert deleted == [b'{"model": "base:latest"}', f'{{"model": "{FORMER}"}}'.encode()]
    assert FORMER not in {row.name for row in store.all()}


def test_delete_with_its_versions_deletes_nothing_when_one_of_them_is_protected(
    local_client: FlaskClient, updated: responses.RequestsMock
) -> None:
    local_client.put("/api/settings", json={"protected_models": [FORMER]})

    refused = local_client.delete(f"{MODELS}/base?versions=true")

    assert refused.status_code == 409
    updated.assert_call_count(f"{BASE}/api/delete", 0)


FAULTS = [
    pytest.param({"body": requests.ConnectionError()}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, id="5xx"),
    pytest.param({"json": {"error": "model 'x' not found"}, "status": 404}, 404, id="gone-meanwhile"),
    pytest.param({"body": "<html>", "status": 502}, 500, id="not-json"),
]


@pytest.mark.parametrize(("answer", "status"), FAULTS)
def test_delete_reports_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, answer: dict[str, Any], status: int
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/ps", "ps_none")
    wire.delete(f"{BASE}/api/delete", **answer)

    response = client.delete(f"{MODELS}/smollm2:135m")

    assert response.status_code == status

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
from app.settings import Settings
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
def local_client(settings: Settings, folder: Folder) -> Iterator[FlaskClient]:
    """A backend that knows where Ollama keeps its models."""
    app = create_app(replace(settings, environ={"OLLAMA_MODELS": str(folder.path)}))
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

"""Odd values in the answers of Ollama and registries: a faulty entry of a list does not hide the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import responses
from flask.testing import FlaskClient

from tests.raw_server import Connection, raw_server

BASE = "http://localhost:11434"
API = "/api/providers/ollama"
MODEL = {"name": "good:1", "size": 3, "digest": "0" * 64, "modified_at": "2026-01-01T00:00:00Z"}
HALF = "odd\ud800"

FAULTY = [
    pytest.param({"name": HALF}, id="half a character"),
    pytest.param({"size": -1}, id="negative"),
    pytest.param({"size": 10**400}, id="digits"),
    pytest.param({"size": True}, id="boolean"),
    pytest.param({"digest": HALF}, id="digest"),
    pytest.param({"modified_at": "0001-01-01T00:00:00+05:30"}, id="before all time"),
    pytest.param({"modified_at": "9999-12-31T23:59:59-05:30"}, id="after all time"),
    pytest.param({"details": {"family": HALF}}, id="half a character in its details"),
    pytest.param({"details": {"context_length": -1}}, id="negative in its details"),
    pytest.param({"capabilities": [HALF]}, id="half a character in a list"),
    pytest.param({"capabilities": 5}, id="no list"),
]


@pytest.mark.parametrize("odd", FAULTY)
def test_faulty_model_is_left_out_of_the_list_and_counted(
    client: FlaskClient, wire: responses.RequestsMock, odd: dict[str, Any]
) -> None:
    wire.get(f"{BASE}/api/tags", json={"models": [MODEL, {**MODEL, "name": "odd:1", **odd}]})
    wire.get(f"{BASE}/api/tags", json={"models": [{**MODEL, **odd}]})

    listed = client.get(f"{API}/models")
    alone = client.get(f"{API}/models")

    assert listed.status_code == 200, listed.text
    assert [model["name"] for model in listed.json["models"]] == ["good:1"]  # type: ignore[index]
    assert (listed.json["total"], listed.json["left_out"]) == (1, 1)  # type: ignore[index]
    assert (alone.status_code, alone.json["error_type"]) == (500, "invalid_upstream_response")  # type: ignore[index]


@pytest.mark.parametrize("odd", [{"capabilities": None}, {"details": None}, {"details": {"family": None}}])
def test_null_is_as_good_as_absent(
    client: FlaskClient, wire: responses.RequestsMock, odd: dict[str, Any]
) -> None:
    wire.get(f"{BASE}/api/tags", json={"models": [{**MODEL, **odd}]})

    listed = client.get(f"{API}/models").json

    assert listed is not None
    assert (listed["total"], listed["models"][0]["details"]["family"]) == (1, "")


def test_faulty_model_in_memory_does_not_hide_the_others(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    odd = [{"size": -5}, {"size_vram": 10**30}, {"expires_at": "0001-01-01T00:00:00+05:30"}, {"name": HALF}]
    wire.get(f"{BASE}/api/ps", json={"models": [MODEL, *({**MODEL, **values} for values in odd)]})

    running = client.get(f"{API}/running")

    assert running.status_code == 200, running.text
    assert (running.json["total"], running.json["left_out"]) == (1, 4)  # type: ignore[index]


@pytest.mark.parametrize(
    "odd",
    [
        {"template": HALF},
        {"capabilities": [HALF]},
        {"parameters": f"stop {HALF}"},
        {"details": {"context_length": -1}},
    ],
)
def test_details_with_an_odd_value_are_no_details(
    client: FlaskClient, wire: responses.RequestsMock, odd: dict[str, Any]
) -> None:
    wire.post(f"{BASE}/api/show", json=odd)

    response = client.get(f"{API}/models/good:1")

    assert (response.status_code, response.json["error_type"]) == (500, "invalid_upstream_response")  # type: ignore[index]


@pytest.mark.parametrize(
    "parameters",
    [
        "num_ctx 1\nnum_ctx 2",
        "num_ctx -5",
        "num_ctx NaN",
        f"num_ctx {'9' * 5000}",
        f"num_ctx {'[' * 5000}",
        'num_ctx "',
    ],
)
def test_window_that_no_model_can_have_is_not_known(
    client: FlaskClient, wire: responses.RequestsMock, parameters: str
) -> None:
    info = {"general.architecture": "x", "x.context_length": -1}
    wire.post(f"{BASE}/api/show", json={"parameters": parameters, "model_info": info})
    wire.get(f"{BASE}/api/tags", json={"models": [MODEL]})
    wire.get(f"{BASE}/api/ps", json={"models": []})

    response = client.get(f"{API}/models/good:1")

    assert response.status_code == 200, response.text
    assert response.json["context"] == {"trained": None, "in_force": None}  # type: ignore[index]
    assert "NaN" not in response.text


@pytest.mark.parametrize("version", [HALF, "1" * 1000, 5, None])
def test_version_that_is_none_is_an_error(
    client: FlaskClient, wire: responses.RequestsMock, version: Any
) -> None:
    wire.get(f"{BASE}/api/version", json={"version": version})

    outcome = client.post(f"{API}/test").json

    assert outcome is not None
    assert outcome["status"] == "not_ollama"


@pytest.mark.parametrize(
    "part",
    [
        {"status": HALF},
        {"status": "x" * 2000},
        {"status": "pulling", "total": -1},
        {"status": "pulling", "digest": "a", "completed": -1},
        {"status": 5},
        {"status": "pulling", "digest": HALF},
    ],
)
def test_odd_line_of_progress_is_an_error(
    client: FlaskClient, wire: responses.RequestsMock, part: dict[str, Any]
) -> None:
    wire.post(f"{BASE}/api/pull", json.dumps(part) + "\n")

    response = client.post(f"{API}/pull", json={"model": "127.0.0.1:1/library/a:latest"})

    assert (response.status_code, response.json["error_type"]) == (500, "invalid_upstream_response")  # type: ignore[index]


def test_half_a_character_in_an_error_is_replaced(client: FlaskClient, wire: responses.RequestsMock) -> None:
    wire.get(f"{BASE}/api/tags", json={"error": HALF}, status=500)

    response = client.get(f"{API}/models")

    assert response.json["error"] == "Ollama failed with HTTP 500: odd\ufffd"  # type: ignore[index]


MANIFESTS = [
    pytest.param(b"[" * 200_000, id="deep"),
    pytest.param(b'{"layers": [], "config": {"size": -1}}', id="negative"),
    pytest.param(b'{"layers": [], "x": %s}' % (b"[" * 500 + b"]" * 500), id="nested"),
    pytest.param(b'{"layers": [], "config": {"size": ' + b"9" * 5000 + b"}}", id="digits"),
    pytest.param(b"x" * 2_000_000, id="large"),
]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_odd_manifest_takes_only_its_own_model(
    client: FlaskClient, point: Callable[..., None], manifest: bytes
) -> None:
    """The registry and the Ollama are the same server."""

    def script(connection: Connection) -> None:
        name = f"127.0.0.1:{server.port}/library/a:1"
        told = {"models": [MODEL, {**MODEL, "name": name}], "version": "0.30.0"}
        body = manifest if connection.path.startswith("/v2/") else json.dumps(told).encode()
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        name = f"127.0.0.1:{server.port}/library/a:1"

        updates = client.get(f"{API}/updates")
        plan = client.post(f"{API}/pull", json={"model": name, "insecure": True, "dry_run": True})

    assert updates.status_code == 200, updates.text
    statuses = {model["model"]: model["status"] for model in updates.json["models"]}  # type: ignore[index]
    assert statuses[name] == "unknown"
    assert (plan.status_code, plan.json["error_type"]) == (500, "invalid_upstream_response")  # type: ignore[index]

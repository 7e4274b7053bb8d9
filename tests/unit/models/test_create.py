"""Models that are made: copied, or from another one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from tests.conftest import events
from tests.wire import replay

BASE = "http://localhost:11434"
OLLAMA = "/api/providers/ollama"
COPY = {"source": "smollm2:135m", "destination": "mine"}
DERIVED = {"model": "derived", "from": "smollm2:135m", "system": "You talk like a pirate."}


def _sent(wire: responses.RequestsMock, path: str) -> Any:
    return next(json.loads(call.request.body) for call in wire.calls if call.request.url == BASE + path)


def test_copy_gives_a_second_name(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "POST", BASE + "/api/copy", "copy_ok")

    response = client.post(f"{OLLAMA}/copy", json=COPY)

    assert response.status_code == 200
    assert response.json == {"source": "smollm2:135m", "destination": "mine:latest", "copied": True}
    assert _sent(wire, "/api/copy") == {"source": "smollm2:135m", "destination": "mine:latest"}


def test_copy_over_another_model_wants_to_be_told_so(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "POST", BASE + "/api/copy", "copy_ok")
    taken = {**COPY, "destination": "LLAMA3.2:1b"}

    refused = client.post(f"{OLLAMA}/copy", json=taken)
    done = client.post(f"{OLLAMA}/copy", json={**taken, "overwrite": True})

    assert refused.status_code == 409
    assert refused.json is not None
    assert refused.json["error_type"] == "model_exists"
    assert done.status_code == 200
    wire.assert_call_count(f"{BASE}/api/copy", 1)


def test_copy_of_an_unknown_model_is_404(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.post(f"{OLLAMA}/copy", json={**COPY, "source": "nonexistent"})

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error_type"] == "model_not_found"


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "bad name"},
        {"destination": "a:b:c"},
        {"destination": ""},
        {"overwrite": "yes"},
        {"nope": 1},
    ],
)
def test_copy_of_bad_input_is_400_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, changed: dict[str, Any]
) -> None:
    response = client.post(f"{OLLAMA}/copy", json={**COPY, **changed})

    assert response.status_code == 400
    assert len(wire.calls) == 0


FAULTS = [
    pytest.param({"body": requests.ConnectionError()}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"json": {"error": "model not found"}, "status": 404}, 404, id="gone-meanwhile"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, id="5xx"),
    pytest.param({"body": "<html>", "status": 400}, 500, id="not-json"),
]


@pytest.mark.parametrize(("answer", "status"), FAULTS)
def test_copy_reports_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, answer: dict[str, Any], status: int
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    wire.post(f"{BASE}/api/copy", **answer)

    assert client.post(f"{OLLAMA}/copy", json=COPY).status_code == status


def test_create_from_a_model_answers_with_its_log(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "POST", BASE + "/api/create", "create_from_model")
    changes = {"parameters": {"temperature": 0.1, "num_ctx": 2048, "stop": "x"}, "license": "MIT"}

    response = client.post(f"{OLLAMA}/create", json={**DERIVED, **changes})

    assert response.status_code == 200
    assert response.json is not None
    assert (response.json["model"], response.json["created"]) == ("derived:latest", True)
    assert response.json["status_log"][-1]["status"] == "success"
    assert _sent(wire, "/api/create") == {
        **DERIVED,
        "model": "derived:latest",
        "parameters": {"temperature": 0.1, "num_ctx": 2048, "stop": ["x"]},
        "license": ["MIT"],
        "stream": True,
    }


def test_create_over_another_model_wants_to_be_told_so(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "POST", BASE + "/api/create", "create_from_model")
    taken = {**DERIVED, "model": "SMOLLM2:135m"}

    refused = client.post(f"{OLLAMA}/create", json=taken)
    done = client.post(f"{OLLAMA}/create", json={**taken, "overwrite": True})

    assert refused.status_code == 409
    assert refused.json is not None
    assert refused.json["error_type"] == "model_exists"
    assert "overwrite" in refused.json["hint"]
    assert done.status_code == 200
    wire.assert_call_count(f"{BASE}/api/create", 1)


@pytest.mark.parametrize(("path", "body"), [("create", DERIVED), ("copy", COPY)])
def test_protected_model_is_not_replaced(
    client: FlaskClient, wire: responses.RequestsMock, path: str, body: dict[str, Any]
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    client.put("/api/settings", json={"protected_models": ["LLAMA3.2:1b"]})
    name = "destination" if path == "copy" else "model"

    response = client.post(f"{OLLAMA}/{path}", json={**body, name: "llama3.2:1B", "overwrite": True})

    assert response.status_code == 409
    assert response.json is not None
    assert response.json["error_type"] == "model_protected"
    assert {call.request.path_url for call in wire.calls} == {"/api/tags"}


def test_create_as_a_stream_is_progress_and_one_done(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "POST", BASE + "/api/create", "create_from_model")

    got = events(client.post(f"{OLLAMA}/create", json={**DERIVED, "stream": True}))

    assert [name for name, _ in got] == ["progress"] * 6 + ["done"]
    assert got[-1][1]["created"] is True


def test_create_that_fails_in_mid_stream_is_an_error(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "POST", BASE + "/api/create", "create_unknown_blob")

    response = client.post(f"{OLLAMA}/create", json=DERIVED)
    got = events(client.post(f"{OLLAMA}/create", json={**DERIVED, "stream": True}))

    assert response.status_code == 500
    assert response.json is not None
    assert response.json["error_type"] == "create_failed"
    assert "no such file" in response.json["details"]["upstream_error"]
    assert [name for name, _ in got] == ["progress", "error"]
    assert got[-1][1]["error_type"] == "create_failed"


CREATE_FAULTS = [
    pytest.param({"body": requests.ConnectionError()}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, id="5xx"),
    pytest.param({"json": {"error": "no"}, "status": 400}, 400, id="4xx"),
    pytest.param({"body": "<html>"}, 500, id="not-json"),
    pytest.param({"body": b'{"x":1}\n'}, 500, id="missing-field"),
    pytest.param({"body": b'{"status":"writing manifest"}\n'}, 500, id="cut"),
    pytest.param({"body": b""}, 500, id="empty"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("answer", "status"), CREATE_FAULTS)
def test_create_reports_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, answer: dict[str, Any], status: int, stream: bool
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    wire.post(f"{BASE}/api/create", **answer)

    response = client.post(f"{OLLAMA}/create", json={**DERIVED, "stream": stream})

    if response.content_type.startswith("text/event-stream"):
        assert [name for name, _ in events(response)] == ["progress", "error"]
    else:
        assert response.status_code == status


def test_create_from_a_model_that_is_not_here_is_404_and_pulls_nothing(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.post(f"{OLLAMA}/create", json={**DERIVED, "from": "nonexistent"})

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error_type"] == "model_not_found"
    assert {call.request.path_url for call in wire.calls} == {"/api/tags"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": "bad name"}, "model"),
        ({"from": "bad name"}, "model"),
        ({"from": None}, "from"),
        ({"digest": "0" * 64}, "digest"),
        ({"system": 5}, "system"),
        ({"template": ""}, "template"),
        ({"license": [""]}, "license"),
        ({"parameters": {"num_ctx": "2048"}}, "parameters"),
        ({"parameters": {"num_ctx": 0}}, "parameters"),
        ({"parameters": {"num_ctx": 1.5}}, "parameters"),
        ({"parameters": {"temperature": "hot"}}, "parameters"),
        ({"parameters": {"top_p": 2}}, "parameters"),
        ({"parameters": {"use_mmap": 1}}, "parameters"),
        ({"parameters": {"stop": [1]}}, "parameters"),
        ({"parameters": {"mirostat": 1}}, "parameters"),
        ({"stream": "yes"}, "stream"),
        ({"overwrite": "yes"}, "overwrite"),
        ({"nope": 1}, "nope"),
    ],
)
def test_create_of_bad_input_is_400_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, changed: dict[str, Any], field: str
) -> None:
    response = client.post(f"{OLLAMA}/create", json={**DERIVED, **changed})

    assert response.status_code == 400
    assert response.json is not None
    assert field in response.json["details"]
    assert len(wire.calls) == 0


def test_create_from_nothing_is_400(client: FlaskClient) -> None:
    response = client.post(f"{OLLAMA}/create", json={"model": "a"})

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"].startswith("from: ")

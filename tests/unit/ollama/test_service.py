"""The three routes that ask Ollama's own API: list, pull, and what goes wrong with them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from tests.raw_server import Connection, raw_server
from tests.wire import replay

BASE = "http://localhost:11434"
MODELS = "/api/providers/ollama/models"
PULL = "/api/providers/ollama/pull"
NAME = "127.0.0.1:1/library/a:latest"  # whose registry is not there


def test_list_models_answers_in_the_contracts_shape(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.get(MODELS)

    assert response.status_code == 200
    assert response.json is not None
    assert response.json["total"] == 2
    assert response.json["models"][0] == {
        "name": "llama3.2:1b",
        "size": 98362745,
        "modified_at": "2026-11-22T14:03:42.502393Z",
        "digest": "sha256:e9987dc8f756d91b97cad5e10e0625545efd5c7817f9902f86d9e3fccee8a212",
        "details": {
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_1",
            "context_length": 8192,
        },
        "capabilities": ["completion"],
    }


@pytest.mark.parametrize(("body", "total"), [('{"models":[]}', 0), ('{"models":null}', 0)])
def test_list_models_of_an_empty_ollama_is_empty(
    client: FlaskClient, wire: responses.RequestsMock, body: str, total: int
) -> None:
    wire.get(f"{BASE}/api/tags", body)

    response = client.get(MODELS)

    assert response.json == {"models": [], "total": total}


def test_list_models_of_an_older_ollama_has_no_capabilities(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    model = {
        "name": "old:latest",
        "size": 1,
        "modified_at": "2024-05-04T14:56:49.277302595-07:00",
        "digest": "A" * 64,
        "details": {"format": "gguf", "family": "llama", "families": None, "parameter_size": "7B"},
    }
    wire.get(f"{BASE}/api/tags", json={"models": [model]})

    listed = client.get(MODELS).json["models"][0]  # type: ignore[index]

    assert listed["modified_at"] == "2024-05-04T21:56:49.277302Z"
    assert listed["digest"] == "sha256:" + "a" * 64
    assert listed["details"]["families"] == []
    assert listed["details"]["quantization_level"] == ""
    assert "capabilities" not in listed


LIST_FAULTS = [
    pytest.param({"body": requests.ConnectionError("refused")}, 503, "upstream_unavailable", id="down"),
    pytest.param({"body": requests.ConnectTimeout()}, 504, "upstream_timeout", id="no-route"),
    pytest.param({"body": requests.ReadTimeout()}, 504, "upstream_timeout", id="slow"),
    pytest.param({"body": "<html>hello</html>"}, 500, "invalid_upstream_response", id="not-json"),
    pytest.param({"body": "[]"}, 500, "invalid_upstream_response", id="not-an-object"),
    pytest.param({"json": {}}, 500, "invalid_upstream_response", id="missing-field"),
    pytest.param({"json": {"models": [{"name": "x"}]}}, 500, "invalid_upstream_response", id="half-a-model"),
    pytest.param({"json": {"models": "x"}}, 500, "invalid_upstream_response", id="wrong-type"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, "upstream_error", id="5xx"),
    pytest.param({"body": "<html>", "status": 502}, 500, "invalid_upstream_response", id="5xx-html"),
    pytest.param({"json": {"error": "busy"}, "status": 503}, 503, "upstream_busy", id="busy"),
    pytest.param({"json": {"error": "no"}, "status": 401}, 401, "invalid_api_key", id="key"),
    pytest.param({"body": "", "status": 403}, 500, "upstream_error", id="host-refused"),
    pytest.param({"body": "404 page not found", "status": 404}, 500, "invalid_upstream_response", id="404"),
    pytest.param(
        {"body": requests.exceptions.ChunkedEncodingError()}, 500, "upstream_incomplete", id="cut-off"
    ),
    pytest.param({"body": requests.exceptions.InvalidURL()}, 500, "upstream_error", id="bad-url"),
    pytest.param(
        {"body": requests.ConnectionError("Failed to resolve: NameResolutionError")},
        503,
        "upstream_unavailable",
        id="dns",
    ),
    pytest.param({"body": requests.exceptions.SSLError("x")}, 503, "upstream_unavailable", id="tls"),
]


@pytest.mark.parametrize(("answer", "status", "error_type"), LIST_FAULTS)
def test_list_models_reports_upstream_fault(
    client: FlaskClient,
    wire: responses.RequestsMock,
    answer: dict[str, Any],
    status: int,
    error_type: str,
) -> None:
    wire.get(f"{BASE}/api/tags", **answer)

    response = client.get(MODELS)

    assert response.status_code == status
    assert response.json is not None
    assert response.json["error_type"] == error_type
    assert response.json.get("hint") or error_type in {"upstream_error", "upstream_busy"}


def test_list_models_gives_up_on_a_server_that_says_nothing(
    client: FlaskClient, point: Callable[..., None]
) -> None:
    client.put("/api/settings", json={"timeouts": {"list": 0.2}})
    with raw_server(Connection.wait_for_close) as server:
        point(f"{server.url}/v1")

        response = client.get(MODELS)

    assert response.status_code == 504


def test_list_models_of_a_body_cut_in_half_is_an_error(
    client: FlaskClient, point: Callable[..., None]
) -> None:
    def cut(connection: Connection) -> None:
        connection.send_head("application/json")
        connection.send_chunk(b'{"models":[')

    with raw_server(cut) as server:
        point(f"{server.url}/v1")

        response = client.get(MODELS)

    assert response.status_code == 500
    assert response.json is not None
    assert response.json["error_type"] == "upstream_incomplete"


def test_pull_waits_and_answers_with_the_compacted_log(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "POST", BASE + "/api/pull", "pull_already_present")

    response = client.post(PULL, json={"model": "llama3.2:1b"})

    assert response.status_code == 200
    assert response.json is not None
    assert set(response.json) == {"success", "message", "model", "status_log"}
    assert response.json["success"] is True
    assert response.json["message"] == "Model 'llama3.2:1b' pulled successfully"
    assert response.json["model"] == "llama3.2:1b"
    assert len(response.json["status_log"]) == 10
    assert all(
        set(part) == {"status", "digest", "total", "completed"} for part in response.json["status_log"]
    )
    sent = next(call.request for call in wire.calls if call.request.url == f"{BASE}/api/pull")
    assert json.loads(sent.body) == {"model": "llama3.2:1b", "insecure": False, "stream": True}


@pytest.mark.parametrize(
    ("body", "message", "error_type"),
    [
        ({}, "Model name is required", "invalid_request"),
        ({"model": ""}, "Model name is required", "invalid_request"),
        ({"model": "  "}, "Model name is required", "invalid_request"),
        ({"model": None}, "Model name is required", "invalid_request"),
        ({"model": 5}, "model: Not a valid string.", "invalid_request"),
        ({"model": "bad name!"}, None, "invalid_model_name"),
        ({"model": "../../etc/passwd"}, None, "invalid_model_name"),
        ({"model": "a", "nope": 1}, "nope: Unknown field.", "invalid_request"),
        ({"model": "a", "insecure": "yes"}, "insecure: Not a valid boolean.", "invalid_request"),
        ({"model": "evil.example/a/b"}, None, "registry_not_allowed"),
        ({"model": "hf.co/a/b", "insecure": True}, None, "registry_not_allowed"),
    ],
)
def test_pull_of_bad_input_is_400_before_anything_is_sent(
    client: FlaskClient,
    wire: responses.RequestsMock,
    body: dict[str, Any],
    message: str | None,
    error_type: str,
) -> None:
    response = client.post(PULL, json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == error_type
    assert response.json["error"] == (message or response.json["error"])
    assert len(wire.calls) == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pull_unknown_stream", "pull model manifest: file does not exist"),
        ("pull_registry_500", "made to fail"),
        ("pull_unreachable_stream", "connection refused"),
        ("pull_insecure_not_set", "TLS handshake"),
        ("pull_default_registry_no_internet", "no such host"),
    ],
)
def test_pull_that_ollama_fails_is_500_with_the_details(
    client: FlaskClient, wire: responses.RequestsMock, name: str, text: str
) -> None:
    replay(wire, "POST", BASE + "/api/pull", name)

    response = client.post(PULL, json={"model": "127.0.0.1:5005/library/smollm2:pulltest"})

    assert response.status_code == 500
    assert response.json is not None
    assert response.json["error_type"] == "pull_failed"
    assert text in response.json["details"]["upstream_error"]
    assert response.json["hint"]


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (b'{"status":"pulling manifest"}\n', "upstream_incomplete"),
        (b'{"status":"pulling manifest"}\n{"sta', "invalid_upstream_response"),
        (b"<html>", "invalid_upstream_response"),
        (b"[]\n", "invalid_upstream_response"),
        (b"", "upstream_incomplete"),
        (b'{"status":"pulling a","error":"no space left on device"}\n', "pull_failed"),
    ],
)
def test_pull_whose_stream_does_not_end_with_success_is_500(
    client: FlaskClient, wire: responses.RequestsMock, body: bytes, error_type: str
) -> None:
    wire.post(f"{BASE}/api/pull", body)

    response = client.post(PULL, json={"model": "a"})

    assert response.status_code == 500
    assert response.json is not None
    assert response.json["error_type"] == error_type


def test_pull_without_ollama_is_503(client: FlaskClient, wire: responses.RequestsMock) -> None:
    wire.post(f"{BASE}/api/pull", body=requests.ConnectionError())

    assert client.post(PULL, json={"model": "a"}).status_code == 503


def test_pull_that_takes_too_long_is_504_and_goes_on(client: FlaskClient, point: Callable[..., None]) -> None:
    go_on = threading.Event()

    def pull(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        connection.send_chunk(b'{"status":"pulling manifest"}\n')
        go_on.wait(10)
        connection.send_chunk(b'{"status":"success"}\n')
        connection.end()

    client.put("/api/settings", json={"timeouts": {"pull": 0.1}})
    with raw_server(pull) as server:
        point(f"{server.url}/v1")

        late = client.post(PULL, json={"model": NAME})
        client.put("/api/settings", json={"timeouts": {"pull": 10}})
        threading.Timer(0.1, go_on.set).start()
        joined = client.post(PULL, json={"model": NAME.upper()})

    assert late.status_code == 504
    assert "background" in late.json["error"]  # type: ignore[index]
    assert joined.status_code == 200
    assert len(server.requests) == 1


def test_pull_that_falls_silent_is_504(client: FlaskClient, point: Callable[..., None]) -> None:
    def stall(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        connection.send_chunk(b'{"status":"pulling manifest"}\n')
        connection.wait_for_close()

    client.put("/api/settings", json={"timeouts": {"idle": 0.2}})
    with raw_server(stall) as server:
        point(f"{server.url}/v1")

        response = client.post(PULL, json={"model": NAME})

    assert response.status_code == 504

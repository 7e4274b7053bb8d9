"""The models in memory: listed, loaded, unloaded."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from tests.wire import recording, replay

BASE = "http://localhost:11434"
OLLAMA = "/api/providers/ollama"
MODEL = {"model": "smollm2:135m"}


def _sent(wire: responses.RequestsMock, path: str) -> list[Any]:
    return [json.loads(call.request.body) for call in wire.calls if call.request.url == BASE + path]


def test_list_running_tells_memory_and_when_it_ends(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")

    response = client.get(f"{OLLAMA}/running")

    assert response.json == {
        "models": [
            {
                "name": "smollm2:135m",
                "size": 209505483,
                "size_vram": 0,
                "gpu_percent": 0.0,
                "context_length": 4096,
                "expires_at": "2026-11-22T14:03:39.871067Z",
                "forever": False,
                "digest": "sha256:fd5f44c0b5aff6453726119fc560d73a8a995a55b4a49804bc24b1969ecf1794",
                "details": {
                    "format": "gguf",
                    "family": "llama",
                    "families": ["llama"],
                    "parameter_size": "134.52M",
                    "quantization_level": "Q4_1",
                },
            }
        ],
        "total": 1,
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"expires_at": "2319-03-04T13:45:56.74Z"}, {"expires_at": None, "forever": True}),
        ({"expires_at": "0001-01-01T00:00:00Z"}, {"expires_at": None, "forever": False}),
        ({"expires_at": "2026-11-22T16:03:39+02:00"}, {"expires_at": "2026-11-22T14:03:39Z"}),
        ({"size_vram": 139670322}, {"gpu_percent": 66.7}),
        ({"size": 0}, {"gpu_percent": 0.0}),
    ],
)
def test_list_running_explains_what_ollama_writes(
    client: FlaskClient, wire: responses.RequestsMock, changed: dict[str, Any], expected: dict[str, Any]
) -> None:
    entry = json.loads(recording("ps_one_loaded").body)["models"][0]
    wire.get(f"{BASE}/api/ps", json={"models": [{**entry, **changed}]})

    found: Any = client.get(f"{OLLAMA}/running").json

    assert expected.items() <= found["models"][0].items()


def test_list_running_of_none_is_empty(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "GET", BASE + "/api/ps", "ps_none")

    assert client.get(f"{OLLAMA}/running").json == {"models": [], "total": 0}


PS_FAULTS = [
    pytest.param({"body": requests.ConnectionError()}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"body": "<html>"}, 500, id="not-json"),
    pytest.param({"json": {}}, 500, id="missing-field"),
    pytest.param({"json": {"models": [{"name": "x"}]}}, 500, id="half-a-model"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, id="5xx"),
    pytest.param({"body": requests.exceptions.ChunkedEncodingError()}, 500, id="cut"),
]


@pytest.mark.parametrize(("answer", "status"), PS_FAULTS)
def test_list_running_reports_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, answer: dict[str, Any], status: int
) -> None:
    wire.get(f"{BASE}/api/ps", **answer)

    assert client.get(f"{OLLAMA}/running").status_code == status


@pytest.mark.parametrize("keep_alive", [None, 300, -1, 0.5, "10m", "1h30m", "-1s"])
def test_load_asks_without_a_prompt_and_tells_what_it_takes(
    client: FlaskClient, wire: responses.RequestsMock, keep_alive: object
) -> None:
    replay(wire, "POST", BASE + "/api/generate", "load_generate_empty_prompt")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")
    given = {} if keep_alive is None else {"keep_alive": keep_alive}

    answer: Any = client.post(f"{OLLAMA}/load", json={**MODEL, **given}).json

    assert _sent(wire, "/api/generate") == [{**MODEL, **given, "stream": False}]
    assert answer == {
        "model": "smollm2:135m",
        "loaded": True,
        "size": 209505483,
        "size_vram": 0,
        "gpu_percent": 0.0,
        "context_length": 4096,
        "expires_at": "2026-11-22T14:03:39.871067Z",
        "forever": False,
    }


def test_load_of_a_model_that_is_loaded_under_another_name_finds_it(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "POST", BASE + "/api/generate", "load_generate_empty_prompt")
    replay(wire, "GET", BASE + "/api/ps", "ps_two_names_same_weights")
    replay(wire, "GET", BASE + "/api/tags", "tags_during_pull")

    answer: Any = client.post(f"{OLLAMA}/load", json=MODEL).json

    assert (answer["model"], answer["loaded"]) == ("smollm2:135m", True)


def test_load_of_a_model_that_left_again_says_so(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "POST", BASE + "/api/generate", "load_generate_empty_prompt")
    replay(wire, "GET", BASE + "/api/ps", "ps_none")
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    answer = client.post(f"{OLLAMA}/load", json={**MODEL, "keep_alive": "1ms"}).json

    assert answer == {"model": "smollm2:135m", "loaded": False}


def test_load_of_a_model_that_only_embeds_goes_through_embed(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    wire.post(f"{BASE}/api/generate", json={"error": '"x" does not support generate'}, status=400)
    replay(wire, "POST", BASE + "/api/embed", "embed_empty_input")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")

    answer: Any = client.post(f"{OLLAMA}/load", json={**MODEL, "keep_alive": "10m"}).json

    assert answer["loaded"] is True
    assert _sent(wire, "/api/embed") == [{**MODEL, "keep_alive": "10m", "stream": False, "input": ""}]


BAD = [
    ({}, "Model name is required"),
    ({"model": " "}, "Model name is required"),
    ({"model": "bad name"}, None),
    ({"model": "a", "keep_alive": "300"}, None),
    ({"model": "a", "keep_alive": "soon"}, None),
    ({"model": "a", "keep_alive": 0}, None),
    ({"model": "a", "keep_alive": "0s"}, None),
    ({"model": "a", "keep_alive": True}, None),
    ({"model": "a", "keep_alive": [1]}, None),
    ({"model": "a", "keep_alive": "1" * 100 + "s"}, None),
    ({"model": "a", "nope": 1}, "nope: Unknown field."),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_load_of_bad_input_is_400_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, body: dict[str, Any], message: str | None
) -> None:
    response = client.post(f"{OLLAMA}/load", json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"] == (message or response.json["error"])
    assert len(wire.calls) == 0


def test_load_that_fails_says_why(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "POST", BASE + "/api/generate", "load_failure_generate_empty")

    response = client.post(f"{OLLAMA}/load", json=MODEL)

    assert response.status_code == 500
    assert "exceeds file size" in response.text


LOAD_FAULTS = [
    pytest.param({"body": requests.ConnectionError()}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"body": "<html>"}, 500, id="not-json"),
    pytest.param({"json": {"error": "server busy"}, "status": 503}, 503, id="busy"),
    pytest.param({"body": requests.exceptions.ChunkedEncodingError()}, 500, id="cut"),
]


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize(("answer", "status"), LOAD_FAULTS)
def test_load_and_unload_report_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, verb: str, answer: dict[str, Any], status: int
) -> None:
    wire.post(f"{BASE}/api/generate", **answer)

    assert client.post(f"{OLLAMA}/{verb}", json=MODEL).status_code == status


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_load_and_unload_of_an_unknown_model_are_404(
    client: FlaskClient, wire: responses.RequestsMock, verb: str
) -> None:
    replay(wire, "POST", BASE + "/api/generate", "unload_unknown")
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.post(f"{OLLAMA}/{verb}", json={"model": "unknown-model:1b"})

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error_type"] == "model_not_found"


def test_unload_waits_until_it_is_gone(client: FlaskClient, wire: responses.RequestsMock) -> None:
    replay(wire, "POST", BASE + "/api/generate", "unload_generate_keep_alive_0")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")
    replay(wire, "GET", BASE + "/api/ps", "ps_after_unload")

    response = client.post(f"{OLLAMA}/unload", json=MODEL)

    assert response.json == {"model": "smollm2:135m", "loaded": False}
    assert _sent(wire, "/api/generate") == [{**MODEL, "keep_alive": 0, "stream": False}]


def test_unload_of_a_busy_model_says_that_it_is_still_there(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "POST", BASE + "/api/generate", "unload_generate_keep_alive_0")
    replay(wire, "GET", BASE + "/api/ps", "ps_one_loaded")

    response = client.post(f"{OLLAMA}/unload", json=MODEL)

    assert response.json == {"model": "smollm2:135m", "loaded": True}

"""One model in detail."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from app.schemas.show import ParametersField
from tests.wire import replay

BASE = "http://localhost:11434"
MODEL = "/api/providers/ollama/models/smollm2:135m"


def _replay_all(wire: responses.RequestsMock, ps: str = "ps_none") -> None:
    replay(wire, "POST", BASE + "/api/show", "show_ok")
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/ps", ps)


def test_get_model_tells_all_of_it(client: FlaskClient, wire: responses.RequestsMock) -> None:
    _replay_all(wire)

    answer: Any = client.get(MODEL).json

    assert answer["template"].startswith("{{- range .Messages }}<|im_start|>")
    answer["template"] = ""
    assert answer == {
        "name": "smollm2:135m",
        "size": 98362745,
        "digest": "sha256:fd5f44c0b5aff6453726119fc560d73a8a995a55b4a49804bc24b1969ecf1794",
        "modified_at": "2026-11-22T14:02:21.046375Z",
        "details": {
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_1",
            "context_length": 8192,
        },
        "capabilities": ["completion"],
        "context": {"trained": 8192, "in_force": None},
        "parameters": {"stop": ["<|im_start|>", "<|im_end|>"]},
        "template": "",
        "system": "",
        "license": "",
        "requires": "",
        "aliases": [],
        "loaded": False,
    }


def test_get_model_that_is_loaded_tells_its_memory(client: FlaskClient, wire: responses.RequestsMock) -> None:
    _replay_all(wire, "ps_one_loaded")

    answer: Any = client.get(MODEL.replace("smollm2:135m", "SMOLLM2:135M")).json

    assert answer["loaded"] is True
    assert answer["context"] == {"trained": 8192, "in_force": 4096}
    assert answer["expires_at"] == "2026-11-22T14:03:39.871067Z"
    assert (answer["size_vram"], answer["gpu_percent"], answer["forever"]) == (0, 0.0, False)


def test_get_model_lists_other_names_and_knows_it_is_loaded_under_one(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "POST", BASE + "/api/show", "show_ok")
    replay(wire, "GET", BASE + "/api/tags", "tags_during_pull")
    replay(wire, "GET", BASE + "/api/ps", "ps_two_names_same_weights")

    answer: Any = client.get(MODEL).json

    assert answer["aliases"] == ["llama3.2:1b"]
    assert answer["loaded"] is True


def test_get_model_takes_the_context_in_force_from_its_parameters(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    wire.post(f"{BASE}/api/show", json={"parameters": "num_ctx    2048", "model_info": None})
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    replay(wire, "GET", BASE + "/api/ps", "ps_none")

    answer: Any = client.get(MODEL).json

    assert answer["context"] == {"trained": None, "in_force": 2048}


def test_get_unknown_model_is_404_with_what_is_there(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "POST", BASE + "/api/show", "show_unknown_404")
    replay(wire, "GET", BASE + "/api/tags", "tags_models")

    response = client.get("/api/providers/ollama/models/hf.co/user/nope:q4")

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error_type"] == "model_not_found"
    assert response.json["details"] == {
        "model": "hf.co/user/nope:q4",
        "available": ["llama3.2:1b", "smollm2:135m"],
    }


@pytest.mark.parametrize("name", ["bad name", "a:b:c", "..%2f..%2fetc/passwd", "a/b/c/d", "%00"])
def test_get_model_of_a_bad_name_is_400_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, name: str
) -> None:
    response = client.get(f"/api/providers/ollama/models/{name}")

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "invalid_model_name"


FAULTS = [
    pytest.param({"body": requests.ConnectionError("refused")}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"body": "<html>"}, 500, id="not-json"),
    pytest.param({"json": {"details": 5}}, 500, id="wrong-type"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, id="5xx"),
    pytest.param({"json": {"error": "no"}, "status": 400}, 400, id="4xx"),
    pytest.param({"body": requests.exceptions.ChunkedEncodingError()}, 500, id="cut"),
]


@pytest.mark.parametrize(("answer", "status"), FAULTS)
def test_get_model_reports_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, answer: dict[str, Any], status: int
) -> None:
    wire.post(f"{BASE}/api/show", **answer)

    response = client.get(MODEL)

    assert response.status_code == status


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("temperature   0.1\nnum_ctx  2048", {"temperature": 0.1, "num_ctx": 2048}),
        ('stop  "<|end|>"', {"stop": ["<|end|>"]}),
        ('stop  "a"\nstop  "b c"', {"stop": ["a", "b c"]}),
        ('x "1"\nx "2"', {"x": ["1", "2"]}),
        (r'stop "\"\n\x07\u00e9é"', {"stop": ['"\n\x07éé']}),
        ("num_ctx 1e+06\nuse_mmap false", {"num_ctx": 1_000_000, "use_mmap": False}),
        ("old   plain text", {"old": "plain text"}),
        ('bad "half', {"bad": '"half'}),
    ],
)
def test_parameters_are_parsed_as_go_writes_them(text: str, parameters: dict[str, Any]) -> None:
    parsed = ParametersField().deserialize(text)

    assert parsed == parameters

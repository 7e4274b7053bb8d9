"""Bodies with odd values in every field: the engine answers each in its own words, and never with a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.engine.routes.wire import FAULT
from tests.engine.conftest import MODEL as BUNDLED
from tests.engine.process import EngineProcess

pytestmark = pytest.mark.live

MODEL = "odd:short"  # the bundled model, with a short window
HALF = "\\ud800"  # half of a character, as JSON writes it
DEEP = "[" * 1000 + "]" * 1000
DEEPER = "[" * 100_000 + "]" * 100_000
DEEP_OBJECT = '{"a":' * 900 + "1" + "}" * 900
ODD = [
    "null", "true", "0", "-1", "1.5", "1e999", "-1e999", "NaN", "Infinity", "1" * 400, "9" * 5000, '""',
    '"x"', f'"{HALF}"', f'"a{HALF}b\\udc00"', f'{{"{HALF}":"{HALF}"}}', "[]", "[null]", "[1]", "[[]]", "[{}]",
    f'["{HALF}"]', "{}", '{"type":1}', DEEP, DEEPER, DEEP_OBJECT,
]  # fmt: skip
ODD_FORMATS = [
    '{"type":"json_schema"}', '{"type":"json_schema","json_schema":5}',
    '{"type":"json_schema","json_schema":{"schema":5}}', '{"type":"object","properties":5}',
    '{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":5}}}',
]  # fmt: skip
ODD_PARTS = [
    '[{"type":"function","function":5}]', '[{"type":"function","function":{"name":1,"parameters":[]}}]',
    '[{"role":"user","content":"x","images":[5]}]', '[{"role":5,"content":{}}]',
    '[{"role":"user","content":[{"type":"text","text":5}]}]',
    '[{"role":"user","content":[{"type":"image_url","image_url":5}]}]',
    '[{"role":"assistant","content":"x","tool_calls":5}]',
    '[{"role":"assistant","content":"x","tool_calls":[{"function":{"name":5,"arguments":"x"}}]}]',
    '[{"role":"tool","content":"x","tool_call_id":{},"tool_name":5,"thinking":[]}]',
]  # fmt: skip

MESSAGES = [{"role": "user", "content": "Hi"}]
ROUTES: dict[str, tuple[dict[str, Any], str]] = {
    "POST /api/chat": (
        {"model": MODEL, "messages": MESSAGES, "stream": False},
        "model messages stream options format keep_alive tools think logprobs top_logprobs truncate shift",
    ),
    "POST /api/generate": (
        {"model": MODEL, "prompt": "Hi", "stream": False},
        "model prompt stream options format keep_alive suffix system template images context raw think",
    ),
    "POST /v1/chat/completions": (
        {"model": MODEL, "messages": MESSAGES, "max_tokens": 1},
        "model messages stream stream_options max_tokens seed stop temperature top_p presence_penalty "
        "response_format tools tool_choice logprobs top_logprobs reasoning_effort logit_bias n",
    ),
    "POST /v1/completions": (
        {"model": MODEL, "prompt": "Hi", "max_tokens": 1},
        "model prompt stream stream_options max_tokens seed stop temperature suffix echo logprobs",
    ),
    "POST /v1/embeddings": ({"model": MODEL, "input": "Hi"}, "model input dimensions encoding_format"),
    "POST /api/embed": (
        {"model": MODEL, "input": "Hi"},
        "model input options keep_alive truncate dimensions",
    ),
    "POST /api/embeddings": ({"model": MODEL, "prompt": "Hi"}, "model prompt options keep_alive"),
    "POST /api/show": ({"model": MODEL}, "model name verbose system options"),
    "POST /api/copy": ({"source": MODEL, "destination": "odd:copy"}, "source destination"),
    "DELETE /api/delete": ({"model": "odd:gone"}, "model name"),
    "POST /api/pull": (
        {"model": "127.0.0.1:1/library/odd", "insecure": True, "stream": False},
        "model name insecure stream",
    ),
    "POST /api/create": (
        {"model": "odd:made", "from": MODEL, "stream": False},
        "model name from files template system parameters messages license stream quantize adapters",
    ),
}


def odd_values(field: str) -> list[str]:
    more = {"format": ODD_FORMATS, "response_format": ODD_FORMATS, "messages": ODD_PARTS, "tools": ODD_PARTS}
    return ODD + more.get(field, [])


def with_field(body: dict[str, Any], field: str, value: str) -> bytes:
    """Return *body* with the JSON text *value* in *field*."""
    others = {key: entry for key, entry in body.items() if key != field}
    return (json.dumps(others)[:-1].rstrip() + (", " if others else "") + f'"{field}": {value}}}').encode()


@pytest.fixture(scope="module", autouse=True)
def _no_faults(engine: EngineProcess) -> Iterator[None]:
    """Make the model, and look for tracebacks in the log at the end."""
    short = {"num_ctx": 128, "num_predict": 1}
    engine.post("/api/create", {"model": MODEL, "from": BUNDLED, "parameters": short}).raise_for_status()
    yield
    for model in (MODEL, "odd:copy", "odd:made"):
        engine.request("DELETE", "/api/delete", json={"model": model})
    assert "Traceback" not in engine.log


def check(engine: EngineProcess, route: str, data: bytes) -> str:
    """Send *data*; return what is wrong with the answer, or an empty text."""
    method, path = route.split()
    answer = engine.request(method, path, data=data)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    parts = [json.loads(line, parse_constant=pytest.fail) for line in lines if line != "[DONE]"]
    errors = [part["error"] for part in parts if "error" in part]
    sentences = [error["message"] if isinstance(error, dict) else error for error in errors]
    is_right = len(sentences) == 1 if answer.status_code >= 400 else len(sentences) <= 1
    if not is_right or any(not text or "internal" in text.lower() or FAULT in text for text in sentences):
        return f"{answer.status_code} {answer.text[:200]}"
    return ""


@pytest.mark.parametrize("route", ROUTES)
def test_odd_value_in_a_field_is_answered_in_words(engine: EngineProcess, route: str) -> None:
    body, fields = ROUTES[route]

    faults = {
        f"{field}: {value[:60]}": fault
        for field in fields.split()
        for value in odd_values(field)
        if (fault := check(engine, route, with_field(body, field, value)))
    }

    assert faults == {}


@pytest.mark.parametrize("route", ROUTES)
def test_body_that_is_no_object_is_answered_in_words(engine: EngineProcess, route: str) -> None:
    bodies = [value.encode() for value in ODD] + [b"", b"{", b"\xff\xfe", b"\x00", b'{"model":']

    assert [fault for data in bodies if (fault := check(engine, route, data))] == []

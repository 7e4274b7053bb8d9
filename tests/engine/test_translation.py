"""Native requests in the runner's words, and its answers in native ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.engine.gojson import BadBodyError
from app.engine.models import details
from app.engine.models.store import ModelStore
from app.engine.routes import conversation, openai_body
from app.engine.routes.answers import Metrics, native_parts, upstream_message
from app.engine.routes.wire import ApiError
from app.engine.runners import child
from tests.registry import smollm2_file

PNG = "iVBORw0KGgo="


def event(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def test_tool_call_in_pieces_becomes_one_native_call() -> None:
    parts = [
        event({"role": "assistant", "content": None}),
        event({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "get_time"}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": '{"tz":'}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": '"UTC"}'}}]}),
        event({}, finish_reason="tool_calls", timings={"predicted_n": 9, "predicted_ms": 2.5}),
        b"data: [DONE]\n\n",
    ]

    found = list(native_parts(parts, Metrics()))

    function = {"index": 0, "name": "get_time", "arguments": {"tz": "UTC"}}
    assert found[0] == {"content": "", "tool_calls": [{"id": "c1", "function": function}]}
    assert found[1]["end"]["done_reason"] == "stop"
    assert found[1]["end"]["eval_count"] == 9
    assert found[1]["end"]["eval_duration"] == 2_500_000


def test_events_cut_anywhere_are_put_together() -> None:
    stream = event({"content": "a"}) + event({"reasoning_content": "b"}) + event({"content": "c"})
    parts = [stream[index : index + 7] for index in range(0, len(stream), 7)]

    found = list(native_parts(parts, Metrics()))

    assert found[:-1] == [{"content": "a"}, {"content": "", "thinking": "b"}, {"content": "c"}]


def test_native_messages_become_openai_messages() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = [
        {"role": "user", "content": "look", "images": [PNG]},
        {"role": "assistant", "tool_calls": [call], "thinking": "hm"},
        {"role": "tool", "content": "1", "tool_call_id": "c"},
    ]

    user, assistant, tool = conversation.openai_messages(messages)

    url = user["content"][1]["image_url"]["url"]
    assert url == f"data:image/png;base64,{PNG}"
    assert assistant["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    assert assistant["reasoning_content"] == "hm"
    assert tool == {"role": "tool", "content": "1", "tool_call_id": "c"}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"images": ["!"]}, "illegal base64"),
        ({"tool_calls": [{"function": {"arguments": "{}"}}]}, "Value looks like object"),
    ],
)
def test_native_message_that_ollama_refuses_is_refused(message: Any, error: str) -> None:
    with pytest.raises(ApiError, match=error):
        conversation.openai_messages([message])


def test_options_win_over_the_model_and_the_model_over_the_defaults() -> None:
    found = conversation.sampling({"temperature": 0.1, "top_k": 5}, {"top_k": 7, "num_predict": -1})

    assert found == {"temperature": 0.1, "top_k": 7, "top_p": 0.9}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": ["x"]},
        {"messages": [{"role": 5}]},
        {"messages": [{"content": {}}]},
        {"messages": [{"content": ["x"]}]},
        {"messages": [{"content": [{"type": "text"}]}]},
        {"messages": [{"tool_calls": [{"function": {"arguments": "[]"}}]}]},
        {"messages": [{"tool_calls": [5]}]},
    ],
)
def test_openai_body_that_ollama_refuses_is_refused(body: object) -> None:
    with pytest.raises(BadBodyError):
        openai_body.check_chat(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"error":{"message":"m"}}', '{"error":{"message":"m"}}'),
        (501, b'{"error":{"message":"m"}}', "m"),
        (501, b"<html>", "<html>"),
    ],
)
def test_runner_error_is_told_as_ollama_tells_it(status: int, body: bytes, message: str) -> None:
    assert upstream_message(status, body) == message


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (5000, "5K"), (134_515_008, "134.52M"), (1_235_814_432, "1.2B"), (8 * 10**9, "8B")],
)
def test_number_of_weights_is_shortened_as_ollama_does(count: int, text: str) -> None:
    assert details.human_number(count) == text


@pytest.mark.live
def test_file_that_llama_cpp_refuses_is_a_load_error(seeded_store: ModelStore) -> None:
    path = seeded_store.root / "noise.gguf"
    path.write_bytes(smollm2_file().read_bytes()[:100_000])
    order = {
        "path": str(path),
        "num_ctx": 512,
        "parallel": 1,
        "embedding": False,
        "alias": "x",
        "chat_template": "chatml",
    }

    with pytest.raises(child.LoadError, match="unable to load model: "):
        child.start(order)


@pytest.mark.live
def test_runner_without_a_usable_order_is_a_load_error() -> None:
    with pytest.raises(child.LoadError, match="llama runner process has terminated"):
        child.start({})

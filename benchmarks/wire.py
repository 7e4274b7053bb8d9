"""The upstream's answers as bytes, each made once."""

from __future__ import annotations

import functools
import json
from typing import Any

Json = dict[str, Any]

TOKENS = 200
"""Tokens of an answer, if the model's name has no number."""

LONG_TOKENS = 50_000
"""Tokens of the longest answer."""

MODELS = ("instant", "slow", "long", "paced")

PACED_SECONDS = 0.02
"""Seconds between two tokens of the model ``paced``."""

_PACES = {"slow": 0.1, "paced": PACED_SECONDS}
_BLOCK = 65536  # bytes written at a time
_DETAILS = {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "1B"}
_LISTED = [
    {
        "name": f"{name}:latest",
        "model": f"{name}:latest",
        "modified_at": "2026-01-01T00:00:00Z",
        "size": 1_000_000_000,
        "digest": f"{number:064x}",
        "details": {**_DETAILS, "quantization_level": "Q4_0", "context_length": 131072},
        "capabilities": ["completion"],
    }
    for number, name in enumerate(MODELS, 1)
]


def prepare() -> None:
    """Make the tokens, which takes a while, before the first request."""
    _tokens()


def tokens_of(model: str) -> int:
    """Return the number of tokens that *model* answers: 500 for ``long:500``."""
    name, _, count = model.partition(":")
    if count.isdigit():
        return max(1, min(int(count), LONG_TOKENS))
    return LONG_TOKENS if name == "long" else TOKENS


def pace_of(model: str) -> float | None:
    """Return the seconds between two tokens of *model*; None: as fast as the client reads."""
    return _PACES.get(model.partition(":")[0])


def text_of(count: int) -> str:
    """Return the text of *count* tokens; all tokens differ, so a wrong order is noticed."""
    return "".join(f"t{number} " for number in range(count))


def head(content_type: str, length: int | None = None) -> bytes:
    """Return the head of an answer; without *length* the body is chunked."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n".encode()


@functools.cache
def whole(model: str) -> bytes:
    """Return an answer that is not streamed."""
    count = tokens_of(model)
    message = {"role": "assistant", "content": text_of(count)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _json({**_frame("chat.completion"), "choices": [choice], "usage": _usage(count)})


@functools.cache
def events(model: str) -> tuple[bytes, ...]:
    """Return the chunks of a streamed answer, one event for each token; the first has the head too."""
    count = tokens_of(model)
    first, *more = _tokens()[:count]
    frame = _frame("chat.completion.chunk")
    stop = _chunk(_event(frame, {"content": ""}, "stop"))
    usage = _chunk(b"data: " + _compact({**frame, "choices": [], "usage": _usage(count)}) + b"\n\n")
    end = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return (head("text/event-stream") + first, *more, stop, usage, end)


@functools.cache
def _tokens() -> list[bytes]:
    frame = _frame("chat.completion.chunk")
    return [
        _chunk(_event(frame, {"role": "assistant", "content": f"t{number} "}))
        for number in range(LONG_TOKENS)
    ]


@functools.cache
def blocks(model: str) -> tuple[bytes, ...]:
    """Return a streamed answer in few large pieces."""
    data = b"".join(events(model))
    return tuple(data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK))


@functools.cache
def route(path: str) -> bytes | None:
    """Return the answer of any other route; None when there is no such route."""
    answers: dict[str, Json] = {
        "/v1/models": {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 1, "owned_by": "library"} for name in MODELS],
        },
        "/api/version": {"version": "0.33.0"},
        "/api/tags": {"models": _LISTED},
        "/api/ps": {"models": []},
        "/api/show": {
            "details": _LISTED[0]["details"],
            "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
            "capabilities": ["completion"],
        },
    }
    return _json(answers[path]) if path in answers else None


def _json(value: Json) -> bytes:
    body = _compact(value)
    return head("application/json", len(body)) + body


def _frame(kind: str) -> Json:
    """Return the fields that every part of an answer has, as Ollama sends them."""
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1795356053,
        "model": "instant",
        "system_fingerprint": "fp_ollama",
    }


def _event(frame: Json, delta: Json, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + _compact({**frame, "choices": [choice]}) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _compact(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _usage(count: int) -> Json:
    return {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": count + 10}

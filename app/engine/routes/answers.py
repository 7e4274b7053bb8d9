"""Translate the runner's event stream into the lines of Ollama's ``/api/chat`` and ``/api/generate``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.engine.routes.conversation import native_call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from app.engine.gojson import Object

_NOT_IMPLEMENTED = 501


@dataclass
class Metrics:
    """The durations of one answer, in nanoseconds."""

    started: int = field(default_factory=time.perf_counter_ns)
    load_duration: int = 0

    def final(self, finish_reason: str, timings: Object) -> Object:
        """Return the last line's fields, from the runner's *timings* in milliseconds."""
        return {
            "done": True,
            "done_reason": "length" if finish_reason == "length" else "stop",
            "total_duration": time.perf_counter_ns() - self.started,
            "load_duration": self.load_duration,
            "prompt_eval_count": timings.get("cache_n", 0) + timings.get("prompt_n", 0),
            "prompt_eval_duration": int(timings.get("prompt_ms", 0) * 1e6),
            "eval_count": timings.get("predicted_n", 0),
            "eval_duration": int(timings.get("predicted_ms", 0) * 1e6),
        }


def events(parts: Iterable[bytes]) -> Iterator[Object]:
    """Yield the JSON objects of an event stream."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n\n")
        for event in whole:
            if event.startswith(b"data: ") and event != b"data: [DONE]":
                yield json.loads(event[6:])


def native_parts(parts: Iterable[bytes], metrics: Metrics) -> Iterator[Object]:
    """Yield ``content`` and ``thinking`` as they come, and the tool calls at the end, when they are complete.

    The fields under ``end`` go to the top level of the line; those of the last part say that it is done.
    """
    finish_reason = ""
    timings: Object = {}
    calls: dict[int, Object] = {}
    logprobs: list[Any] = []
    for event in events(parts):
        timings = event.get("timings") or timings
        for choice in event.get("choices") or []:
            finish_reason = choice.get("finish_reason") or finish_reason
            delta = choice.get("delta") or {}
            _collect(calls, delta.get("tool_calls") or [])
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            if part := _part(delta, logprobs):
                yield part
    if calls:
        found = [native_call(index, calls[index]) for index in sorted(calls)]
        yield {"content": "", "tool_calls": found}
    yield {"content": "", "end": metrics.final(finish_reason, timings)}


def _part(delta: Object, logprobs: list[Any]) -> Object:
    content, thinking = delta.get("content"), delta.get("reasoning_content")
    if not content and not thinking:
        return {}
    part: Object = {"content": content or ""}
    if thinking:
        part["thinking"] = thinking
    if logprobs:
        part["end"] = {"done": False, "logprobs": logprobs}
    return part


def _collect(calls: dict[int, Object], deltas: list[Any]) -> None:
    """Append the *deltas* of tool calls to *calls*: the runner sends a call in several pieces."""
    for delta in deltas:
        call = calls.setdefault(delta.get("index", 0), {"function": {"name": "", "arguments": ""}})
        call["id"] = delta.get("id") or call.get("id", "")
        for key, text in (delta.get("function") or {}).items():
            call["function"][key] = call["function"].get(key, "") + (text or "")


def upstream_message(status: int, body: bytes) -> str:
    """Return the message of a runner's error: its JSON text, as Ollama does; of a 501, the sentence in it."""
    text = body.decode("utf-8", "replace")
    if status != _NOT_IMPLEMENTED:
        return text
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text

"""Answers in Ollama's own words: the lines of ``POST /api/chat``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.services.answer import Answer, Json, tool_call
from app.upstream.failures import invalid_response
from app.upstream.json import count, objects


@dataclass
class NativeAnswer(Answer):
    """An answer of Ollama's own API."""

    def load(self, data: bytes) -> None:
        """Take the whole answer at once."""
        for _ in self._take(data):
            pass
        if not self.done:
            raise invalid_response(self.name, "its answer is not complete")

    def _line(self, line: bytes) -> Iterator[Json]:
        if line.strip():
            yield from self._take(line)

    def _take(self, line: bytes) -> Iterator[Json]:
        part = self._parse(line)
        self.events += 1
        message = part.get("message") or {}
        if not isinstance(message, dict):
            raise invalid_response(self.name, "its message is no object")
        yield from self._parts(_text(message.get("content")), _text(message.get("thinking")))
        calls = [_call(call) for call in objects(message.get("tool_calls"))]
        if calls:
            self.tool_calls += calls
            yield {"tool_calls": calls}
        self.logprobs += objects(part.get("logprobs"))
        if part.get("done") is True:
            self._finish(part)

    def _finish(self, part: Json) -> None:
        self.done = True
        reason = _text(part.get("done_reason")) or "stop"
        # Ollama's own word for an answer that asks for a tool is `stop`; /v1 says it like this.
        self.finish_reason = "tool_calls" if self.tool_calls and reason == "stop" else reason
        completion = count(part.get("eval_count"))
        if completion is not None or self.is_silent:
            prompt = count(part.get("prompt_eval_count"))
            self.usage = {"prompt_tokens": prompt, "completion_tokens": completion or 0}
        load, generation = count(part.get("load_duration")), count(part.get("eval_duration"))
        if load is not None:
            self.timing["load_time"] = round(load / 1e9, 3)
        if completion and generation:
            self.timing["tokens_per_second"] = round(completion / generation * 1e9, 1)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _call(call: Any) -> Json:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return tool_call(call.get("id"), function.get("name"), function.get("arguments"))

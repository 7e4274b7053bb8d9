"""What a provider answers to a chat, in one piece or in many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.errors import EmptyResponse, UpstreamError
from app.services.openai_client import error_message
from app.services.reader import SIZE_LIMIT
from app.services.upstream import clean, cut_off, invalid_response

Json = dict[str, Any]

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass
class Answer:
    """An answer as it is put together.

    :param name: the provider's, for messages
    :param secret: never to be shown in one
    """

    name: str
    secret: str = field(default="", repr=False)
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    usage: Json | None = None
    done: bool = False
    events: int = 0
    _rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[Json]:
        """Take the next bytes of an event stream, yielding the deltas that they complete.

        :raises UpstreamError: for an error in the stream
        """
        # Lines are cut as bytes: a character may be split between reads, and str would cut at U+2028.
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > SIZE_LIMIT:
            raise invalid_response(self.name, "an event is far too large")
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                yield from self._event(line[5:].strip())

    def end(self) -> None:
        """Take note that the stream is over.

        :raises UpstreamIncomplete: when its terminator is missing
        :raises EmptyResponse: when it held no message
        """
        if self._rest.strip() == b"data: [DONE]":
            self.done = True
        if not (self.finish_reason or self.done):
            raise cut_off(self.name)
        if not (self.finish_reason or self.text or self.thoughts):
            raise self._empty()

    def load(self, data: bytes) -> None:
        """Take the whole answer at once.

        :raises EmptyResponse: when it holds no message
        """
        answer = self._parse(data)
        self._usage(answer)
        choices = self._choices(answer)
        if not choices:
            raise self._empty()
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise invalid_response(self.name, "its message is missing")
        content, thinking = message.get("content"), _thinking(message)
        if content is None and not thinking:
            raise self._empty()
        if content is not None and not isinstance(content, str | list):
            raise invalid_response(self.name, "its content is no text")
        self.text.append(_plain(content))
        self.thoughts.append(thinking)
        self._finish(choices[0].get("finish_reason") or "stop")

    def _event(self, data: bytes) -> Iterator[Json]:
        self.events += 1
        if data == b"[DONE]":
            self.done = True
            return
        chunk = self._parse(data)
        self._usage(chunk)
        for choice in self._choices(chunk):
            delta = choice.get("delta") or {}
            if not isinstance(delta, dict):
                raise invalid_response(self.name, "a delta is no object")
            if thinking := _thinking(delta):
                self.thoughts.append(thinking)
                yield {"thinking": thinking}
            if content := _plain(delta.get("content")):
                self.text.append(content)
                yield {"content": content}
            if reason := choice.get("finish_reason"):
                self._finish(reason)

    def _finish(self, reason: object) -> None:
        if reason == "error":  # OpenRouter's, with or without the error beside it
            raise UpstreamError(
                f"{self.name} failed in the middle of its answer.", hint="Ask again, or use another model."
            )
        self.finish_reason = reason if isinstance(reason, str) else "stop"

    def _choices(self, parsed: Json) -> list[Json]:
        choices = parsed.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise invalid_response(self.name, "its choices are no list of objects")
        return choices

    def _parse(self, data: bytes) -> Json:
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise invalid_response(self.name, "it is not JSON") from exc
        if not isinstance(parsed, dict):
            raise invalid_response(self.name, "it is not a JSON object")
        if parsed.get("error"):
            message = clean(error_message(parsed), self.secret)
            raise UpstreamError(f"{self.name} failed while answering: {message or 'it did not say why'}")
        return parsed

    def _usage(self, parsed: Json) -> None:
        usage = parsed.get("usage")
        if isinstance(usage, dict) and _count(usage.get("completion_tokens")) is not None:
            self.usage = {name: _count(usage.get(name)) for name in _COUNTS}

    def _empty(self) -> EmptyResponse:
        return EmptyResponse(
            f"{self.name} answered without a message.",
            hint="Ask again; when it stays so, the model or its template is broken: try another one.",
        )


def measure(response: str, usage: Json | None) -> Json:
    """Return the tokens as the provider counted them, else an estimate that says it is one."""
    if usage is None:
        estimate = int(len(response.split()) * 1.3)
        return {
            "prompt_tokens": None,
            "completion_tokens": estimate,
            "total_tokens": None,
            "estimated": True,
        }
    prompt, completion = usage.get("prompt_tokens"), usage["completion_tokens"]
    total = usage.get("total_tokens") or (prompt or 0) + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "estimated": False,
    }


def _count(value: object) -> int | None:
    """Return *value* when it can be a number of tokens."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _thinking(message: Json) -> str:
    """Return the thoughts: Ollama and OpenRouter say `reasoning`, others `reasoning_content`."""
    found = message.get("reasoning") or message.get("reasoning_content")
    return found if isinstance(found, str) else ""


def _plain(content: object) -> str:
    """Return a content's text; some providers send a list of parts."""
    if isinstance(content, list):
        return "".join(_plain(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""

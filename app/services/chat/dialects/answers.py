"""Parse the answer to a chat, whole or as a stream: the base class, and the parser for OpenAI's format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from app.errors import EmptyResponse, InvalidUpstreamResponse, UpstreamError
from app.schemas.chat_results import ToldUsage
from app.schemas.messages import ToolCall
from app.services.chat.tool_calls import tool_call
from app.upstream.failures import cut_off, invalid_response
from app.upstream.json import Characters, count, objects, parse_answer
from app.upstream.limits import Lines

Parsed = Mapping[str, object]
"""A JSON object from a provider, whose content is not checked yet."""

_BOM = b"\xef\xbb\xbf"
_HALF = "it holds half a character"


class Delta(TypedDict, total=False):
    """A piece of an answer: the data of a stream's `delta`."""

    content: str
    thinking: str
    tool_calls: list[ToolCall]


class Timing(TypedDict, total=False):
    """Times in seconds, and tokens per second; an unknown value is absent."""

    time_to_first_token: float
    tokens_per_second: float
    load_time: float


@dataclass
class Answer(ABC):
    """The parts of an answer that have come so far.

    :param name: the provider's name, for error messages
    :param secret: the provider's API key, which is removed from error messages
    """

    name: str
    secret: str = field(default="", repr=False)
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = ""
    usage: ToldUsage | None = None
    timing: Timing = field(default_factory=lambda: Timing())  # from the provider
    done: bool = False
    events: int = 0
    _lines: Lines = field(default_factory=Lines)
    _characters: tuple[Characters, Characters] = field(default_factory=lambda: (Characters(), Characters()))

    @property
    def is_silent(self) -> bool:
        """Whether the answer has no text, no thinking and no tool call."""
        return not (self.text or self.thoughts or self.tool_calls)

    def feed(self, data: bytes) -> Iterator[Delta]:
        """Parse the next bytes of a stream, and yield the deltas that they complete.

        :raises UpstreamError: when the stream holds an error
        """
        for line in self._lines.feed(data):
            if not self.done:
                yield from self._line(line)

    def flush(self) -> Iterator[Delta]:
        """Parse the bytes after the last newline; the stream is over.

        :raises UpstreamIncomplete: when they are a part of an event
        """
        rest = self._lines.end()
        if rest.strip() and not self.done:
            try:
                yield from self._line(rest)
            except InvalidUpstreamResponse as exc:
                raise cut_off(self.name) from exc

    def end(self) -> None:
        """Check that the stream, which is over, was complete.

        :raises UpstreamIncomplete: when the terminator is missing
        :raises EmptyResponse: when the stream held no message
        """
        for _ in self.flush():
            pass
        if not (self.finish_reason or self.done):
            raise cut_off(self.name)
        self._check_characters()
        if not self.finish_reason and self.is_silent:
            raise self._empty()

    @abstractmethod
    def load(self, data: bytes) -> None:
        """Parse a whole answer.

        :raises EmptyResponse: when it holds no message
        """

    @abstractmethod
    def _line(self, line: bytes) -> Iterator[Delta]:
        """Parse a line of the stream."""

    def _parts(self, text: str, thinking: str) -> list[Delta]:
        """Keep a piece of the answer, and return it as deltas.

        :raises InvalidUpstreamResponse: when it holds half a character
        """
        of_text, of_thinking = self._characters
        try:
            text, thinking = of_text.feed(text), of_thinking.feed(thinking)
        except ValueError as exc:
            raise invalid_response(self.name, _HALF) from exc
        found: list[Delta] = []
        if thinking:
            self.thoughts.append(thinking)
            found.append({"thinking": thinking})
        if text:
            self.text.append(text)
            found.append({"content": text})
        return found

    def _check_characters(self) -> None:
        """Check that the last character of the answer is whole."""
        try:
            for characters in self._characters:
                characters.end()
        except ValueError as exc:
            raise invalid_response(self.name, _HALF) from exc

    def _parse(self, data: bytes) -> Parsed:
        return parse_answer(data, self.name, self.secret)

    def _empty(self) -> EmptyResponse:
        return EmptyResponse(
            f"{self.name} answered without a message.",
            hint="Ask again. If that does not help, the model or its template is broken: use another model.",
        )


class _Pieces(TypedDict):
    """The pieces of a tool call that have come so far."""

    id: object
    name: object
    arguments: object


@dataclass
class OpenAIAnswer(Answer):
    """An answer of an OpenAI-compatible provider."""

    _calls: dict[int, _Pieces] = field(default_factory=dict)  # unfinished tool calls, by their index

    def load(self, data: bytes) -> None:
        """Parse a whole answer."""
        answer = self._parse(data)
        self._usage(answer)
        choices = self._choices(answer)
        if not choices:
            raise self._empty()
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise invalid_response(self.name, "its message is missing")
        content, thinking = message.get("content"), _thinking(message)
        if content is None and not thinking and not message.get("tool_calls"):
            raise self._empty()
        self._parts(self._text(content), thinking)
        self._check_characters()
        self._take_pieces(message.get("tool_calls"))
        self._take_logprobs(choices[0])
        self._finish(choices[0].get("finish_reason") or "stop")
        self._complete_calls()

    def _line(self, line: bytes) -> Iterator[Delta]:
        if not line.startswith(b"data:"):
            line = line.removeprefix(_BOM)
            if not line.startswith(b"data:"):
                return
        data = line[5:].strip()
        self.events += 1
        if data == b"[DONE]":
            self.done = True
            yield from self._complete_calls()
            return
        chunk = self._parse(data)
        self._usage(chunk)
        for choice in self._choices(chunk):
            delta = choice.get("delta") or {}
            if not isinstance(delta, dict):
                raise invalid_response(self.name, "a delta is no object")
            yield from self._parts(self._text(delta.get("content")), _thinking(delta))
            if delta.get("tool_calls"):
                self._take_pieces(delta["tool_calls"])
            if choice.get("logprobs"):
                self._take_logprobs(choice)
            if reason := choice.get("finish_reason"):
                self._finish(reason)
                yield from self._complete_calls()

    def _take_pieces(self, pieces: Any) -> None:
        """Join the pieces of tool calls; a call is complete only when the answer ends."""
        for number, piece in enumerate(pieces if isinstance(pieces, list) else []):
            function = piece.get("function") if isinstance(piece, dict) else None
            if not isinstance(function, dict):
                raise invalid_response(self.name, "a tool call names no function")
            call = self._call_of(piece, number)
            call["id"] = call["id"] or piece.get("id")
            call["name"] = call["name"] or function.get("name")
            arguments = function.get("arguments")
            if isinstance(arguments, str) and isinstance(call["arguments"], str):
                call["arguments"] += arguments
            elif arguments is not None:
                call["arguments"] = arguments

    def _call_of(self, piece: Parsed, number: int) -> _Pieces:
        """Return the call of *piece*; some providers give all calls the same index, but different ids."""
        index = piece.get("index")
        key = index if isinstance(index, int) else number
        call = self._calls.get(key)
        if call and call["id"] and piece.get("id") not in (None, "", call["id"]):
            self._calls[-1 - len(self._calls)] = call  # it is complete: a negative number frees the index
            call = None
        if call is None:
            call = self._calls[key] = {"id": "", "name": "", "arguments": ""}
        return call

    def _complete_calls(self) -> Iterator[Delta]:
        calls = [tool_call(**call) for _, call in sorted(self._calls.items(), key=_in_order)]
        self._calls.clear()
        self.tool_calls += calls
        return iter([{"tool_calls": calls}] if calls else ())

    def _take_logprobs(self, choice: Parsed) -> None:
        found = choice.get("logprobs")
        content = found.get("content") if isinstance(found, dict) else None
        self.logprobs += objects(content)

    def _finish(self, reason: object) -> None:
        if reason == "error":  # from OpenRouter, which may leave out the error itself
            raise UpstreamError(
                f"{self.name} failed in the middle of its answer.", hint="Ask again, or use another model."
            )
        self.finish_reason = reason if isinstance(reason, str) else "stop"

    def _choices(self, parsed: Parsed) -> list[Parsed]:
        choices = parsed.get("choices") or []
        if not isinstance(choices, list) or [choice for choice in choices if not isinstance(choice, dict)]:
            raise invalid_response(self.name, "its choices are no list of objects")
        return choices

    def _text(self, content: object) -> str:
        """Return the text of a content, which may be absent."""
        if isinstance(content, str):
            return content
        if content is not None and not isinstance(content, list):
            raise invalid_response(self.name, "its content is no text")
        return _plain(content)

    def _usage(self, parsed: Parsed) -> None:
        usage = parsed.get("usage")
        if not usage and "timings" not in parsed:  # of a stream, only the last event tells them
            return
        usage = usage if isinstance(usage, dict) else {}
        if (completion := count(usage.get("completion_tokens"))) is not None:
            prompt, total = count(usage.get("prompt_tokens")), count(usage.get("total_tokens"))
            self.usage = {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": total}
        timings = parsed.get("timings")  # from llama.cpp's server, beside the usage
        speed = timings.get("predicted_per_second") if isinstance(timings, dict) else None
        if isinstance(speed, float) and speed > 0:
            self.timing["tokens_per_second"] = round(speed, 1)


def _in_order(numbered: tuple[int, _Pieces]) -> tuple[bool, int]:
    """Return the sort key: first the moved calls, with negative numbers, as they came; then by index."""
    number = numbered[0]
    return (number >= 0, abs(number))


def _thinking(message: Parsed) -> str:
    """Return the thinking: Ollama and OpenRouter call it `reasoning`, others `reasoning_content`."""
    found = message.get("reasoning") or message.get("reasoning_content")
    return found if isinstance(found, str) else ""


def _plain(content: object) -> str:
    """Return the text of a content, which from some providers is a list of parts."""
    if isinstance(content, list):
        return "".join(_plain(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""

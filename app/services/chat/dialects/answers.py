"""Answers to a chat as they are put together, in one piece or in many; and those in OpenAI's words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from app.errors import EmptyResponse, InvalidUpstreamResponse, UpstreamError
from app.schemas.chat_results import ToldUsage
from app.schemas.messages import CalledFunction, ToolCall
from app.upstream.failures import cut_off, invalid_response
from app.upstream.json import count, objects, parse, parse_answer
from app.upstream.reading import SIZE_LIMIT

Parsed = Mapping[str, object]
"""An object that a provider wrote; nothing is known of what it holds."""

_BOM = b"\xef\xbb\xbf"


class Delta(TypedDict, total=False):
    """A piece of an answer, as a stream's `delta` tells it."""

    content: str
    thinking: str
    tool_calls: list[ToolCall]


class Timing(TypedDict, total=False):
    """Seconds, and tokens a second, where they are known."""

    time_to_first_token: float
    tokens_per_second: float
    load_time: float


@dataclass
class Answer(ABC):
    """An answer as it is put together.

    :param name: the provider's, for messages
    :param secret: never to be shown in one
    """

    name: str
    secret: str = field(default="", repr=False)
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = ""
    usage: ToldUsage | None = None
    timing: Timing = field(default_factory=lambda: Timing())  # as the provider tells it
    done: bool = False
    events: int = 0
    _rest: bytearray = field(default_factory=bytearray)

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing in it, not even a thought."""
        return not (self.text or self.thoughts or self.tool_calls)

    def feed(self, data: bytes) -> Iterator[Delta]:
        """Take the next bytes of a stream, yielding the deltas that they complete.

        :raises UpstreamError: for an error in the stream
        """
        self._rest += data
        lines: list[bytes] = []
        if b"\n" in data:  # a large event is not looked through again for each part of it
            # Lines are cut as bytes: a character may be split between reads, and str would cut at U+2028.
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        if len(self._rest) > SIZE_LIMIT:
            raise invalid_response(self.name, "an event is far too large")
        for line in lines:
            if not self.done:
                yield from self._line(line)

    def flush(self) -> Iterator[Delta]:
        """Take what came after the last line's end; the stream is over.

        :raises UpstreamIncomplete: when that is a part of something
        """
        rest, self._rest = bytes(self._rest), bytearray()
        if rest.strip() and not self.done:
            try:
                yield from self._line(rest)
            except InvalidUpstreamResponse as exc:
                raise cut_off(self.name) from exc

    def end(self) -> None:
        """Take note that the stream is over.

        :raises UpstreamIncomplete: when its terminator is missing
        :raises EmptyResponse: when it held no message
        """
        for _ in self.flush():
            pass
        if not (self.finish_reason or self.done):
            raise cut_off(self.name)
        if not self.finish_reason and self.is_silent:
            raise self._empty()

    @abstractmethod
    def load(self, data: bytes) -> None:
        """Take the whole answer at once.

        :raises EmptyResponse: when it holds no message
        """

    @abstractmethod
    def _line(self, line: bytes) -> Iterator[Delta]:
        """Take a line of the stream."""

    def _parts(self, text: str, thinking: str) -> Iterator[Delta]:
        """Keep what came, and yield it as deltas."""
        if thinking:
            self.thoughts.append(thinking)
            yield {"thinking": thinking}
        if text:
            self.text.append(text)
            yield {"content": text}

    def _parse(self, data: bytes) -> Parsed:
        return parse_answer(data, self.name, self.secret)

    def _empty(self) -> EmptyResponse:
        return EmptyResponse(
            f"{self.name} answered without a message.",
            hint="Ask again; when it stays so, the model or its template is broken: try another one.",
        )


def tool_call(id: object, name: object, arguments: object) -> ToolCall:
    """Return a tool call as it is answered; arguments that are no object's JSON stay the text they are."""
    if isinstance(arguments, str):
        try:
            parsed = parse(arguments or "{}")
        except (ValueError, RecursionError):
            parsed = None
        arguments = parsed if isinstance(parsed, dict) else arguments
    elif not isinstance(arguments, dict):
        arguments = {}
    function: CalledFunction = {"name": name if isinstance(name, str) else "", "arguments": arguments}
    return {"id": id if isinstance(id, str) else "", "type": "function", "function": function}


class _Pieces(TypedDict):
    """A tool call as far as its pieces came."""

    id: object
    name: object
    arguments: object


@dataclass
class OpenAIAnswer(Answer):
    """An answer of an OpenAI-compatible provider."""

    _calls: dict[int, _Pieces] = field(default_factory=dict)  # tool calls come in pieces, by their index

    def load(self, data: bytes) -> None:
        """Take the whole answer at once."""
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
        if content is not None and not isinstance(content, str | list):
            raise invalid_response(self.name, "its content is no text")
        self.text.append(_plain(content))
        self.thoughts.append(thinking)
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
            content = delta.get("content")
            if content is not None and not isinstance(content, str | list):
                raise invalid_response(self.name, "its content is no text")
            yield from self._parts(_plain(content), _thinking(delta))
            if delta.get("tool_calls"):
                self._take_pieces(delta["tool_calls"])
            if choice.get("logprobs"):
                self._take_logprobs(choice)
            if reason := choice.get("finish_reason"):
                self._finish(reason)
                yield from self._complete_calls()

    def _take_pieces(self, pieces: Any) -> None:
        """Put the pieces of tool calls together; they are whole when the answer ends."""
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
        """Return the call that *piece* belongs to; some providers number all calls alike."""
        index = piece.get("index")
        key = index if isinstance(index, int) else number
        call = self._calls.get(key)
        is_another = call and call["id"] and piece.get("id") not in (None, "", call["id"])
        if call is None:
            call = self._calls[key] = {"id": "", "name": "", "arguments": ""}
        elif is_another:  # what is whole moves out of the way, before those that are still to come
            self._calls[-1 - len(self._calls)] = call
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
        if reason == "error":  # OpenRouter's, with or without the error beside it
            raise UpstreamError(
                f"{self.name} failed in the middle of its answer.", hint="Ask again, or use another model."
            )
        self.finish_reason = reason if isinstance(reason, str) else "stop"

    def _choices(self, parsed: Parsed) -> list[Parsed]:
        choices = parsed.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise invalid_response(self.name, "its choices are no list of objects")
        return choices

    def _usage(self, parsed: Parsed) -> None:
        usage = parsed.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        completion = count(usage.get("completion_tokens"))
        if completion is not None:
            prompt, total = count(usage.get("prompt_tokens")), count(usage.get("total_tokens"))
            self.usage = {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": total}
        timings = parsed.get("timings")  # llama.cpp's, beside the usage
        speed = timings.get("predicted_per_second") if isinstance(timings, dict) else None
        if isinstance(speed, float) and speed > 0:
            self.timing["tokens_per_second"] = round(speed, 1)


def _in_order(numbered: tuple[int, _Pieces]) -> tuple[bool, int]:
    """Sort by number; before those, in the order in which they came, the calls that had to move."""
    number = numbered[0]
    return (number >= 0, abs(number))


def _thinking(message: Parsed) -> str:
    """Return the thoughts: Ollama and OpenRouter say `reasoning`, others `reasoning_content`."""
    found = message.get("reasoning") or message.get("reasoning_content")
    return found if isinstance(found, str) else ""


def _plain(content: object) -> str:
    """Return a content's text; some providers send a list of parts."""
    if isinstance(content, list):
        return "".join(_plain(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""

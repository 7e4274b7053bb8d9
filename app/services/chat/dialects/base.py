"""What a provider answers to a chat, in one piece or in many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from app.errors import EmptyResponse, InvalidUpstreamResponse
from app.schemas.chat import ChatBody
from app.schemas.chat_results import ToldUsage
from app.schemas.messages import CalledFunction, ToolCall
from app.upstream.failures import cut_off, invalid_response
from app.upstream.hanging_up import Register
from app.upstream.json import parse, parse_answer
from app.upstream.reading import SIZE_LIMIT, Body

Json = dict[str, Any]


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
    logprobs: list[Json] = field(default_factory=list)
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

    def _parse(self, data: bytes) -> Json:
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


class Dialect(Protocol):
    """The language in which one provider is asked and understood; made for each attempt."""

    window_before: int | None
    """The window in tokens that the model was loaded with before the attempt, where that is known."""

    def request(self, body: ChatBody) -> tuple[Json, list[str]]:
        """Return the request for *body*, without model and stream, and notices of what is not in it.

        :raises NotSupported: for what the provider does not know
        """

    def open(self, model: str, request: Json, register: Register) -> Body:
        """Send a request and return its open answer.

        :param register: told the connection before the answer begins, so that one can hang up on it
        :raises ModelNotFound: when the provider does not have the model
        """

    def new_answer(self) -> Answer:
        """Return an empty answer."""

    def translated(self, model: str) -> AbstractContextManager[None]:
        """Turn what reading an answer raises into our errors."""

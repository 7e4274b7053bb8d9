"""The dialect of Ollama's own ``/api/chat``, for chats with fields that Ollama's ``/v1`` ignores."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from app.schemas.chat import ChatBody
from app.schemas.messages import Message, ToolCall
from app.services.chat.context_window import ContextWindows
from app.services.chat.dialects.answers import Answer, Delta
from app.services.chat.dialects.base import Request
from app.services.chat.dialects.openai_requests import OLLAMA_ONLY
from app.services.chat.tool_calls import tool_call
from app.services.ollama import OllamaService
from app.upstream.failures import invalid_response
from app.upstream.json import count, objects
from app.upstream.reading import Opening
from app.upstream.threaded import open_in_thread

NATIVE_ONLY = (*OLLAMA_ONLY, "think")
"""The fields that Ollama's ``/v1`` ignores: a chat with one of them goes to ``/api/chat``."""

_SAMPLING = ("temperature", "top_p", "seed", "stop")
_AS_THEY_ARE = ("tools", "format", "think", "keep_alive", "truncate", "logprobs", "top_logprobs")


class OllamaDialect:
    """The dialect of Ollama's own ``/api/chat``."""

    window_before: int | None = None

    def __init__(self, ollama: OllamaService, windows: ContextWindows) -> None:
        self._ollama = ollama
        self._windows = windows

    def request(self, body: ChatBody) -> tuple[Request, list[str]]:
        """Return the request for *body*; an entry of `options` overrides a common field such as `top_p`."""
        common: Request = {name: value for name in _SAMPLING if (value := body.get(name)) is not None}
        if body.get("max_tokens"):
            common["num_predict"] = body["max_tokens"]
        request = {name: value for name in _AS_THEY_ARE if (value := body.get(name)) is not None}
        options = {**common, **(body.get("options") or {})}
        messages = [_message(message) for message in body["messages"]]
        return {"messages": messages, **request, **({"options": options} if options else {})}, []

    def open(self, model: str, request: Request) -> Opening:
        """Send a request and return its open answer."""
        return open_in_thread(lambda: self._ask(model, request))

    def _ask(self, model: str, request: Request) -> Generator[bytes, None, None]:
        """Send a request and return the bytes of its answer; this and their steps may block.

        A `num_ctx` is added so that Ollama does not load the model anew: see
        :meth:`~app.services.chat.context_window.ContextWindows.for_request`.
        """
        options: Any = request.get("options", {})
        provider = self._ollama.provider
        self.window_before = self._windows.loaded(provider, model)
        window = self._windows.for_request(provider, model, options.get("num_ctx"))
        if window is not None:
            options = {**options, "num_ctx": window}
        asked = {"model": model, "stream": False, **request, **({"options": options} if options else {})}
        return self._ollama.chat(asked)

    def new_answer(self) -> OllamaAnswer:
        """Return an empty answer."""
        return OllamaAnswer(self._ollama.name, self._ollama.provider.api_key)

    def translated(self) -> AbstractContextManager[None]:
        """Turn the exceptions of reading an answer, in this block, into service errors."""
        return self._ollama.translated()


def _message(message: Message) -> Request:
    """Return *message* in Ollama's words: images are base64 without a prefix, arguments are objects."""
    found: Request = {name: value for name, value in message.items() if value and name != "tool_calls"}
    found["content"] = message["content"]
    if message.get("images"):
        found["images"] = [url.partition(",")[2] for url in message["images"]]
    if message.get("tool_calls"):
        found["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return found


def _tool_call(call: ToolCall) -> Request:
    function = call["function"]
    if isinstance(function["arguments"], str):  # the model wrote no object, and Ollama takes only objects
        function = {**function, "arguments": {}}
    return {**({"id": call["id"]} if call.get("id") else {}), "function": function}


@dataclass
class OllamaAnswer(Answer):
    """An answer of Ollama's own API."""

    def load(self, data: bytes) -> None:
        """Take the whole answer at once."""
        for _ in self._take(data):
            pass
        self._check_characters()
        if not self.done:
            raise invalid_response(self.name, "its answer is not complete")

    def _line(self, line: bytes) -> Iterator[Delta]:
        if line.strip():
            yield from self._take(line)

    def _take(self, line: bytes) -> Iterator[Delta]:
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

    def _finish(self, part: Mapping[str, object]) -> None:
        self.done = True
        reason = _text(part.get("done_reason")) or "stop"
        # For an answer that calls a tool, /api/chat says `stop`; /v1 says `tool_calls`.
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


def _call(call: Any) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return tool_call(call.get("id"), function.get("name"), function.get("arguments"))

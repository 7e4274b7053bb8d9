"""Chats by Ollama's own ``/api/chat``: for what ``/v1`` passes over without a word."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from app.services.native_answer import NativeAnswer
from app.services.ollama import OllamaService
from app.upstream.hanging_up import Register
from app.upstream.reading import Body

Json = dict[str, Any]

_SAMPLING = ("temperature", "top_p", "seed", "stop")
_AS_THEY_ARE = ("tools", "format", "think", "keep_alive", "truncate", "logprobs", "top_logprobs")


class NativeRoute:
    """The way to Ollama's own API."""

    def __init__(self, ollama: OllamaService) -> None:
        self._ollama = ollama

    def request(self, body: Json) -> tuple[Json, list[str]]:
        """Return the request for *body*; what `options` name goes before the common settings."""
        common = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
        if body.get("max_tokens"):
            common["num_predict"] = body["max_tokens"]
        request = {name: body[name] for name in _AS_THEY_ARE if body.get(name) is not None}
        options = {**common, **(body.get("options") or {})}
        messages = [_message(message) for message in body["messages"]]
        return {"messages": messages, **request, **({"options": options} if options else {})}, []

    def open(self, model: str, request: Json, register: Register) -> Body:
        """Send a request and return its open answer."""
        return self._ollama.chat({"model": model, "stream": False, **request}, register)

    def new_answer(self) -> NativeAnswer:
        """Return an empty answer."""
        return NativeAnswer(self._ollama.name, self._ollama.provider.api_key)

    def translated(self, _model: str) -> AbstractContextManager[None]:
        """Turn what reading an answer raises into our errors."""
        return self._ollama.translated()


def _message(message: Json) -> Json:
    """Return *message* in Ollama's words: images are bare base64, tool arguments objects."""
    found = {name: value for name, value in message.items() if value and name != "tool_calls"}
    found["content"] = message["content"]
    if message.get("images"):
        found["images"] = [url.partition(",")[2] for url in message["images"]]
    if message.get("tool_calls"):
        found["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return found


def _tool_call(call: Json) -> Json:
    function = call["function"]
    if isinstance(function["arguments"], str):  # a model wrote no object; Ollama takes nothing else
        function = {**function, "arguments": {}}
    return {**({"id": call["id"]} if call.get("id") else {}), "function": function}

"""Chats by ``/v1/chat/completions``, through the openai client."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

from app.config import Timeouts
from app.services.chat.dialects.base import refuse_ollamas_own
from app.services.chat.dialects.openai_answers import OpenAIAnswer
from app.services.providers import openai_api as openai_client
from app.services.providers.openai_api import OpenAIClients
from app.services.providers.store import Provider
from app.upstream.failures import invalid_response
from app.upstream.reading import SIZE_LIMIT, Body, Register, TooMuch

Json = dict[str, Any]

_AS_THEY_ARE = ("temperature", "top_p", "stop", "seed", "max_tokens", "tools", "logprobs", "top_logprobs")
_EFFORTS = {True: "medium", False: "none"}


class OpenAIRoute:
    """The way to what speaks OpenAI's language."""

    def __init__(self, provider: Provider, clients: OpenAIClients, timeouts: Timeouts) -> None:
        self._provider = provider
        self._clients = clients
        self._timeouts = timeouts

    def request(self, body: Json) -> tuple[Json, list[str]]:
        """Return the request for *body*."""
        notices: list[str] = []
        if not self._provider.is_ollama:
            refuse_ollamas_own(self._provider, body)
        request = {name: body[name] for name in _AS_THEY_ARE if body.get(name) is not None}
        if self._provider.is_ollama and request.pop("max_tokens", None):
            notices.append("max_tokens was left out: it is not sent to Ollama. Use options.num_predict.")
        if body.get("format") is not None:
            request["response_format"] = _response_format(body["format"])
        if body.get("think") is not None:
            request["reasoning_effort"] = _EFFORTS.get(body["think"], body["think"])
        tells_thinking = self._provider.is_ollama  # another provider may refuse a field that it does not know
        request["messages"] = [_message(message, tells_thinking) for message in _with_ids(body["messages"])]
        return request, notices

    def open(self, model: str, request: Json, register: Register) -> Body:
        """Send a request and return its open answer."""
        if request.get("stream"):
            request = {**request, "stream_options": {"include_usage": True}}
        request = {"model": model, **request}
        body = self._clients.open_response(
            self._provider, self._timeouts, "/chat/completions", request, register
        )
        if not request.get("stream") or "text/event-stream" in body.content_type:
            return body
        if "json" in body.content_type:
            return UnstreamedBody(body, self.new_answer())
        body.close()
        raise invalid_response(self._provider.name, "it is not an event stream")

    def new_answer(self) -> OpenAIAnswer:
        """Return an empty answer."""
        return OpenAIAnswer(self._provider.name, self._provider.api_key)

    def translated(self, model: str) -> AbstractContextManager[None]:
        """Turn what reading an answer raises into our errors."""
        return openai_client.translated(self._provider, model)


class UnstreamedBody:
    """The answer of a provider that was asked for a stream and gave it whole, as a stream of one event.

    :param answer: an empty one, which checks the provider's
    """

    def __init__(self, body: Body, answer: OpenAIAnswer) -> None:
        self._body = body
        self._answer = answer
        self._data = bytearray()
        self._is_whole = False

    def receive(self) -> bytes | None:
        """Return the event and the terminator when all of the answer is there, and ``b""`` until then.

        :raises UpstreamError: when it is no answer
        """
        if self._is_whole:
            return None
        part = self._body.receive()
        if part is None:
            self._is_whole = True
            return self._event()
        self._data += part
        if len(self._data) > SIZE_LIMIT:
            raise TooMuch
        return b""

    def close(self) -> None:
        """Give the connection back, or close it."""
        self._body.close()

    def _event(self) -> bytes:
        self._answer.load(bytes(self._data))
        answer = json.loads(self._data)
        for choice in answer["choices"]:
            choice["delta"] = choice.pop("message", None)
            choice["finish_reason"] = choice.get("finish_reason") or "stop"
        return b"data: " + json.dumps(answer).encode() + b"\n\ndata: [DONE]\n\n"


def _message(message: Json, tells_thinking: bool) -> Json:
    """Return *message* in OpenAI's words: images are parts of it, tool arguments texts."""
    found: Json = {"role": message["role"], "content": message["content"]}
    if message.get("images"):
        text = [{"type": "text", "text": message["content"]}] if message["content"] else []
        images = [{"type": "image_url", "image_url": {"url": url}} for url in message["images"]]
        found["content"] = [*text, *images]
    if message.get("tool_calls"):
        found["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    if message["role"] == "tool":
        found["tool_call_id"] = message["tool_call_id"]
    if tells_thinking and message.get("thinking"):
        found["reasoning"] = message["thinking"]
    return found


def _with_ids(messages: list[Json]) -> list[Json]:
    """Return *messages* with an id in each tool call, and the same in its result: OpenAI wants them."""
    found: list[Json] = []
    waiting: list[tuple[str, str]] = []  # the function's name and the id of calls without a result yet
    for message in messages:
        if message.get("tool_calls"):
            calls = [
                {**call, "id": call.get("id") or f"call_{len(found)}_{number}"}
                for number, call in enumerate(message["tool_calls"])
            ]
            waiting += [(call["function"]["name"], call["id"]) for call in calls]
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool" and not message.get("tool_call_id"):
            name = message["tool_name"]
            match = next((call for call in waiting if call[0] == name), (name, name))
            waiting = [call for call in waiting if call is not match]
            message = {**message, "tool_call_id": match[1]}
        found.append(message)
    return found


def _tool_call(call: Json) -> Json:
    function = call["function"]
    given = function["arguments"]  # a text is what a model wrote that is no JSON object
    arguments = given if isinstance(given, str) else json.dumps(given)
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _response_format(wanted: str | Json) -> Json:
    if isinstance(wanted, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}

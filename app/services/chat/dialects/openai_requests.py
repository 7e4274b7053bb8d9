"""The dialect of ``/v1/chat/completions``, sent through the openai client."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

from app.config import Timeouts
from app.errors import NotSupported
from app.schemas.chat import ChatBody
from app.schemas.messages import Message, ToolCall
from app.services.chat.dialects.answers import OpenAIAnswer
from app.services.chat.dialects.base import Request
from app.services.providers import OpenAIClients, Provider
from app.services.providers import openai_api as openai_client
from app.upstream.failures import invalid_response
from app.upstream.json import parse
from app.upstream.reading import Body, Opening

OLLAMA_ONLY = ("options", "keep_alive", "truncate")
"""The fields of a chat that only Ollama's own API has."""

_AS_THEY_ARE = ("temperature", "top_p", "stop", "seed", "max_tokens", "tools", "logprobs", "top_logprobs")
_EFFORTS: dict[bool | str, str] = {True: "medium", False: "none"}


class OpenAIDialect:
    """The dialect of every OpenAI-compatible provider: ``/v1/chat/completions``."""

    window_before: int | None = None
    sends_thinking = False  # a provider may refuse a field that it does not know

    def __init__(self, provider: Provider, clients: OpenAIClients, timeouts: Timeouts) -> None:
        self._provider = provider
        self._clients = clients
        self._timeouts = timeouts

    def request(self, body: ChatBody) -> tuple[Request, list[str]]:
        """Return the request for *body*.

        :raises NotSupported: when *body* has a field that only Ollama's own API has
        """
        _refuse_ollamas_own(self._provider, body)
        request = {name: value for name in _AS_THEY_ARE if (value := body.get(name)) is not None}
        if (wanted := body.get("format")) is not None:
            request["response_format"] = _response_format(wanted)
        if (think := body.get("think")) is not None:
            request["reasoning_effort"] = _EFFORTS.get(think, str(think))
        messages = _with_ids(body["messages"])
        request["messages"] = [_message(message, self.sends_thinking) for message in messages]
        return request, []

    def open(self, model: str, request: Request) -> Opening:
        """Send a request and return its open answer."""
        is_streamed = bool(request.get("stream"))
        request = {"model": model, **request}
        if is_streamed:
            request["stream_options"] = {"include_usage": True}
        body = yield from self._clients.open(self._provider, self._timeouts, "/chat/completions", request)
        if not is_streamed or "text/event-stream" in body.content_type:
            return body
        if "json" in body.content_type:
            return UnstreamedBody(body, self.new_answer())
        body.close()
        raise invalid_response(self._provider.name, "it is not an event stream")

    def new_answer(self) -> OpenAIAnswer:
        """Return an empty answer."""
        return OpenAIAnswer(self._provider.name, self._provider.api_key)

    def translated(self) -> AbstractContextManager[None]:
        """Turn the exceptions of reading an answer, in this block, into service errors."""
        return openai_client.translated(self._provider)


class OllamaV1Dialect(OpenAIDialect):
    """OpenAI's dialect as Ollama's ``/v1`` understands it."""

    sends_thinking = True  # Ollama reads `reasoning` in the messages

    def request(self, body: ChatBody) -> tuple[Request, list[str]]:
        """Return the request for *body*, without ``max_tokens``."""
        request, notices = super().request(body)
        if request.pop("max_tokens", None):
            notices.append("max_tokens was left out: it is not sent to Ollama. Use options.num_predict.")
        return request, notices


class UnstreamedBody:
    """Turns a whole answer into a stream of one event, for a provider that ignores `stream`.

    :param answer: an empty answer, with which the provider's answer is checked
    """

    def __init__(self, body: Body, answer: OpenAIAnswer) -> None:
        self._body = body
        self._answer = answer
        self._data = bytearray()
        self._is_whole = False

    def receive(self) -> bytes | None:
        """Return ``b""`` until the whole answer is there, and then the event and the terminator.

        :raises UpstreamError: when the answer is invalid
        """
        if self._is_whole:
            return None
        part = self._body.receive()
        if part is None:
            self._is_whole = True
            return self._event()
        self._data += part
        return b""

    def close(self) -> None:
        """Give the connection back, or close it."""
        self._body.close()

    def _event(self) -> bytes:
        self._answer.load(bytes(self._data))
        answer = parse(bytes(self._data))
        for choice in answer["choices"]:
            choice["delta"] = choice.pop("message", None)
            choice["finish_reason"] = choice.get("finish_reason") or "stop"
        return b"data: " + json.dumps(answer).encode() + b"\n\ndata: [DONE]\n\n"


def _refuse_ollamas_own(provider: Provider, body: ChatBody) -> None:
    """Raise for a field that only Ollama's own API has: no field is dropped silently."""
    for name in OLLAMA_ONLY:
        if body.get(name) is not None:
            raise NotSupported(
                f"{provider.name} does not know the field {name}: only Ollama has it.",
                hint="Leave it out, or ask a provider of the kind ollama. temperature, top_p, seed, stop and "
                "max_tokens work with every provider.",
                details={name: [f"{provider.name} does not know it."], "provider": provider.id},
            )


def _message(message: Message, sends_thinking: bool) -> Request:
    """Return *message* in OpenAI's words: images are parts of the content, tool arguments are text."""
    found: Request = {"role": message["role"], "content": message["content"]}
    if message.get("images"):
        text = [{"type": "text", "text": message["content"]}] if message["content"] else []
        images = [{"type": "image_url", "image_url": {"url": url}} for url in message["images"]]
        found["content"] = [*text, *images]
    if message.get("tool_calls"):
        found["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    if message["role"] == "tool":
        found["tool_call_id"] = message["tool_call_id"]
    if sends_thinking and message.get("thinking"):
        found["reasoning"] = message["thinking"]
    return found


def _with_ids(messages: list[Message]) -> list[Message]:
    """Return *messages* with an id in each tool call, and the same id in its result: OpenAI requires them."""
    found: list[Message] = []
    waiting: list[tuple[str, str]] = []  # the function's name and the id of calls without a result yet
    for message in messages:
        if message.get("tool_calls"):
            calls: list[ToolCall] = [
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


def _tool_call(call: ToolCall) -> Request:
    function = call["function"]
    given = function["arguments"]  # text when the model wrote no valid JSON object
    arguments = given if isinstance(given, str) else json.dumps(given)
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _response_format(wanted: str | dict[str, Any]) -> Request:
    if isinstance(wanted, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}

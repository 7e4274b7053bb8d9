"""One request to one provider, and what it is answered with."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.errors import ServiceError
from app.services.answer import Answer, measure
from app.services.ollama import check_name
from app.services.openai_client import ResponseBody, translated
from app.services.providers import Provider
from app.services.reader import Body, Register
from app.services.upstream import invalid_response

if TYPE_CHECKING:
    import openai

Json = dict[str, Any]

_SAMPLING = ("temperature", "top_p", "stop", "seed", "max_tokens")


@dataclass
class Call:
    """One request to one provider."""

    provider: Provider
    model: str
    model_is_named: bool
    request: Json
    request_id: str
    notices: list[str] = field(default_factory=list)
    first_error: ServiceError | None = None
    started: float = field(default_factory=time.monotonic)

    def open(self, client: openai.OpenAI, register: Register) -> Body:
        """Send the request."""
        create = client.chat.completions.with_streaming_response.create
        with translated(self.provider, self.model):
            body = ResponseBody(create, {"model": self.model, **self.request}, register)
        if not self.request.get("stream") or "text/event-stream" in body.content_type:
            return body
        if "json" in body.content_type:
            return UnstreamedBody(body)
        body.close()
        raise invalid_response(self.provider.name, "it is not an event stream")

    def start(self) -> Json:
        """Return what a stream begins with."""
        start: Json = {
            "request_id": self.request_id,
            "provider": self.provider.id,
            "model": self.model,
        }
        return {**start, **self._remarks()}

    def result(self, answer: Answer) -> Json:
        """Return the whole response."""
        response, thinking = "".join(answer.text), "".join(answer.thoughts)
        usage = measure(response, answer.usage)
        result = {
            "response": response,
            "provider": self.provider.id,
            "model": self.model,
            "tokens": usage["completion_tokens"],
            "response_time": round(time.monotonic() - self.started, 3),
            "usage": usage,
            "finish_reason": answer.finish_reason or "stop",
            "request_id": self.request_id,
            **self._remarks(),
        }
        return {**result, "thinking": thinking} if thinking else result

    def _remarks(self) -> Json:
        remarks: Json = {"notice": " ".join(self.notices)} if self.notices else {}
        if self.first_error is not None:
            remarks["fallback_used"] = True
            remarks["first_error"] = self.first_error.body(self.request_id)
        return remarks


class UnstreamedBody:
    """The answer of a provider that was asked for a stream and gave it whole, as a stream of one event."""

    def __init__(self, body: ResponseBody) -> None:
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        """Yield the answer as an event, and the terminator."""
        data = b"".join(self._body.chunks())
        try:
            answer = json.loads(data)
            for choice in answer.get("choices") or ():
                choice["delta"] = choice.pop("message")
                choice["finish_reason"] = choice.get("finish_reason") or "stop"
            data = json.dumps(answer).encode()
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            pass  # it is no answer: who reads the event says so
        yield b"data: " + data.replace(b"\n", b" ") + b"\n\ndata: [DONE]\n\n"

    def connection(self) -> socket.socket | None:
        """Return the connection."""
        return self._body.connection()

    def close(self) -> None:
        """Give the connection back, or close it."""
        self._body.close()


def make_call(provider: Provider, body: Json, preferences: Json, request_id: str) -> Call:
    """Return the call of *provider* for a chat, filled in from the settings.

    :raises InvalidModelName: for a name that Ollama would not accept
    """
    model = body.get("model")
    if model and provider.is_ollama:
        check_name(model)
    request: Json = {"messages": _messages(body, preferences["system_prompt"])}
    for name in _SAMPLING:
        value = body.get(name)
        value = preferences.get(name) if value is None else value
        if value is not None:
            request[name] = value
    call = Call(provider, model or provider.model, bool(model), request, request_id)
    if provider.is_ollama and request.pop("max_tokens", None) and body.get("max_tokens"):
        call.notices.append("max_tokens was left out: it is not sent to Ollama.")
    return call


def _messages(body: Json, default_prompt: str) -> list[Json]:
    messages: list[Json] = list(body.get("messages", ()))
    if "message" in body:
        messages.append({"role": "user", "content": body["message"]})
    prompt = body.get("system_prompt")
    prompt = default_prompt if prompt is None else prompt
    if prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": prompt})
    return messages

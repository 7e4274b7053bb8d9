"""Chats: a request goes to a provider, its answer comes back whole or as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.errors import (
    ModelNotFound,
    RateLimited,
    ServiceError,
    UpstreamBusy,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.services import openai_client
from app.services.answer import Answer, measure
from app.services.ollama import OllamaService, check_name
from app.services.openai_client import ChatBody, OpenAIClients
from app.services.preferences import PreferenceStore
from app.services.providers import Provider, ProviderStore
from app.services.reader import read
from app.services.upstream import invalid_response

Json = dict[str, Any]
Event = tuple[str, Json]

_SAMPLING = ("temperature", "top_p", "stop", "seed", "max_tokens")
_FALLBACK_AFTER = (UpstreamUnavailable, UpstreamBusy, UpstreamTimeout, RateLimited)


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

    def open(self, client: Any) -> ChatBody:
        """Send the request."""
        with openai_client.translated(self.provider, self.model):
            body = ChatBody(client, {"model": self.model, **self.request})
        if self.request.get("stream") and "text/event-stream" not in body.content_type:
            body.close()
            raise invalid_response(self.provider.name, "it is not an event stream")
        return body

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


class ChatService:
    """Answers chats.

    :param ollama_for: makes the service for an Ollama provider
    """

    def __init__(
        self,
        providers: ProviderStore,
        preferences: PreferenceStore,
        clients: OpenAIClients,
        ollama_for: Callable[[Provider], OllamaService],
    ) -> None:
        self._providers = providers
        self._preferences = preferences
        self._clients = clients
        self._ollama_for = ollama_for

    def answer(self, body: Json, request_id: str) -> Json:
        """Answer *body*, as :class:`~app.schemas.chat.ChatRequestSchema` loads it, in one piece."""
        error: ServiceError | None = None
        for call in self._calls(body, request_id):
            call.first_error = error
            try:
                return self._answer(call)
            except _FALLBACK_AFTER as exc:
                error = error or exc
        raise error or AssertionError("there is always a first call")

    def stream(self, body: Json, request_id: str) -> Generator[list[Event], None, None]:
        """Answer *body* as events, all that came at a time; an empty list in each silent half second.

        The first is `start`, the last is `done` or `error`. What fails before `start` is raised.
        """
        error: ServiceError | None = None
        for call in self._calls(body, request_id):
            call.first_error = error
            try:
                yield from self._events(call)
            except _FALLBACK_AFTER as exc:
                error = error or exc
            else:
                return
        raise error or AssertionError("there is always a first call")

    def _calls(self, body: Json, request_id: str) -> Iterator[Call]:
        """Yield the call to the provider asked for, then the one to the fallback, where there is one."""
        preferences = self._preferences.all()
        first = body.get("provider") or preferences["default_provider"]
        yield self._call(self._providers.get_enabled(first), body, preferences, request_id)
        second = self._providers.all().get(preferences["fallback_provider"])
        if second and second.enabled and second.id != first:
            yield self._call(second, {**body, "model": None}, preferences, request_id)

    def _call(self, provider: Provider, body: Json, preferences: Json, request_id: str) -> Call:
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

    def _answer(self, call: Call) -> Json:
        answer = Answer(call.provider.name, call.provider.api_key)
        body = self._open(call)
        try:
            with openai_client.translated(call.provider, call.model):
                data = b"".join(body.chunks())
        finally:
            body.close()
        answer.load(data)
        return call.result(answer)

    def _events(self, call: Call) -> Generator[list[Event], None, None]:
        timeouts = self._preferences.timeouts
        answer = Answer(call.provider.name, call.provider.api_key)
        call.request.update(stream=True, stream_options={"include_usage": True})
        chunks = read(lambda: self._open(call), first_byte=timeouts.first_byte, idle=timeouts.idle)
        batch: list[Event] = []
        started = False
        try:
            try:
                with openai_client.translated(call.provider, call.model):
                    for data in chunks:
                        for delta in answer.feed(data):
                            batch.append(("delta", delta))  # noqa: PERF401  # kept when feed raises
                        if answer.done:
                            break
                        if data and not started:
                            batch.insert(0, ("start", call.start()))
                            started = True
                        yield batch
                        batch = []
                    answer.end()
                last = ("done", call.result(answer))
            except ServiceError as exc:
                if not (started or batch):
                    raise
                last = ("error", exc.body(call.request_id))
            start = [] if started else [("start", call.start())]
            yield [*start, *batch, last]
            _let_end(chunks)
        finally:
            chunks.close()

    def _open(self, call: Call) -> ChatBody:
        """Send *call*; where it names no model and the configured one is absent, with one that is there."""
        client = self._clients.get(call.provider, self._preferences.timeouts)
        if not call.model:
            self._choose_model(call, client)
        try:
            return call.open(client)
        except ModelNotFound as exc:
            if call.model_is_named or not call.provider.is_ollama:
                raise self._model_not_found(call, client) from exc
        self._choose_model(call, client)
        return call.open(client)

    def _choose_model(self, call: Call, client: Any) -> None:
        absent = call.model
        if call.provider.is_ollama:
            call.model = self._ollama_for(call.provider).first_chat_model()
        else:
            call.model = self._offered(call, client)[0]
        why = f"'{absent}' is not installed" if absent else "the settings name no model"
        call.notices.append(f"Answered by '{call.model}': the request names no model and {why}.")

    def _model_not_found(self, call: Call, client: Any) -> ModelNotFound:
        if call.provider.is_ollama:
            return self._ollama_for(call.provider).model_not_found(call.model)
        try:
            available = self._offered(call, client)
        except ServiceError:
            available = []
        return ModelNotFound(
            f"{call.provider.name} does not have the model '{call.model}'.",
            hint=f"GET /api/providers/{call.provider.id}/models lists what it has.",
            details={"model": call.model, "available": available[:100]},
        )

    def _offered(self, call: Call, client: Any) -> list[str]:
        models = openai_client.list_models(client, call.provider, self._preferences.timeouts)
        names = [model["id"] for model in models["models"]]
        if not names:
            raise ModelNotFound(
                f"{call.provider.name} offers no model.",
                hint="Load one there, then ask again.",
                details={"available": []},
            )
        return names


def _messages(body: Json, default_prompt: str) -> list[Json]:
    messages: list[Json] = list(body.get("messages", ()))
    if "message" in body:
        messages.append({"role": "user", "content": body["message"]})
    prompt = body.get("system_prompt")
    prompt = default_prompt if prompt is None else prompt
    if prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": prompt})
    return messages


def _let_end(chunks: Generator[bytes, None, None]) -> None:
    """Give the connection a moment to end by itself, so that the next request can use it again."""
    for data in chunks:
        if not data:
            return

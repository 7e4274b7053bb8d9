"""Attempts at a chat: a request to the chosen provider, and one to the fallback when that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from app.config import Timeouts
from app.errors import ServiceError
from app.schemas.chat import ChatBody
from app.schemas.messages import Message
from app.schemas.settings import SettingsValues
from app.services.chat.context_window import ContextWindows
from app.services.chat.dialects.answers import Answer
from app.services.chat.dialects.base import Dialect, Request
from app.services.chat.dialects.ollama import NATIVE_ONLY, OllamaDialect
from app.services.chat.dialects.openai_requests import OLLAMA_ONLY, OllamaV1Dialect, OpenAIDialect
from app.services.ollama import OllamaServers, check_name, key_of
from app.services.providers import OpenAIClients, Provider, ProviderStore
from app.services.settings import SettingsStore, timeouts_of

Event = tuple[str, dict[str, Any]]
"""The name and the data of a stream's event."""


@dataclass
class Attempt:
    """One request to one provider.

    :param body: the chat, with all its messages and with the defaults of the settings
    :param request: the request in the provider's words, without the model
    :param needs: the capabilities that the model must have
    :param notices: sentences for the client about each deviation from its request
    """

    provider: Provider
    dialect: Dialect
    model: str
    model_is_named: bool
    body: ChatBody
    timeouts: Timeouts
    request: Request
    request_id: str
    answer: Answer
    needs: frozenset[str] = frozenset()
    notices: list[str] = field(default_factory=list)
    first_error: ServiceError | None = None  # in an attempt at the fallback: the first provider's error
    error: ServiceError | None = None
    started: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None
    ended_at: float | None = None
    reads: int = 0  # the number of reads that brought a part of the answer
    is_started: bool = False  # the client of a stream got `start`, which names the provider
    is_done: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes as a stream."""
        return bool(self.request.get("stream"))

    @property
    def outcome(self) -> str:
        """How the attempt ended: `ok`, the `error_type` of its error, or `client_left`."""
        if self.is_done:
            return "ok"
        return self.error.error_type if self.error else "client_left"

    @property
    def seconds(self) -> float:
        """How long the attempt took, or has taken so far."""
        return (self.ended_at or time.monotonic()) - self.started

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        return "".join(self.answer.text)

    @property
    def thinking(self) -> str:
        """The model's thinking so far."""
        return "".join(self.answer.thoughts)


class Attempts:
    """Makes the attempts of a chat."""

    def __init__(
        self,
        providers: ProviderStore,
        settings: SettingsStore,
        clients: OpenAIClients,
        ollamas: OllamaServers,
        windows: ContextWindows,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._clients = clients
        self._ollamas = ollamas
        self._windows = windows

    def of(self, body: ChatBody, request_id: str) -> Iterator[Attempt]:
        """Yield the attempt at the chosen provider, then the attempt at the fallback, if there is one.

        :raises ProviderNotFound: when the request names an unknown provider
        :raises ProviderDisabled: when a named provider is disabled
        """
        settings = self._settings.all()
        first = body.get("provider") or settings["default_provider"]
        provider = self._providers.get_enabled(first)
        wished = body.get("fallback_provider")
        if wished:  # a fallback that cannot be used is an error before the first attempt, not after it
            self._providers.get_enabled(wished)
        yield self._make(provider, body, settings, request_id)
        second = wished if "fallback_provider" in body else settings["fallback_provider"]
        fallback = self._providers.all().get(second or "")
        if fallback and fallback.enabled and fallback.id != first:
            yield self._make_fallback(fallback, body, settings, request_id)

    def _make_fallback(
        self, provider: Provider, body: ChatBody, settings: SettingsValues, request_id: str
    ) -> Attempt:
        """Return an attempt at the fallback, with its own model, without the fields that it does not know."""
        unknown = () if provider.is_ollama else OLLAMA_ONLY
        left_out = [name for name in unknown if body.get(name) is not None]
        attempt = self._make(provider, _without(body, "model", *left_out), settings, request_id)
        if left_out:
            attempt.notices.append(f"{provider.name} does not know {', '.join(left_out)}: left out.")
        return attempt

    def _make(self, provider: Provider, body: ChatBody, settings: SettingsValues, request_id: str) -> Attempt:
        """Return an attempt at *provider*.

        :raises InvalidModelName: when Ollama would not accept the model's name
        :raises NotSupported: when the provider does not know a field of the chat
        """
        named = body.get("model")
        if named and provider.is_ollama:
            check_name(named)
        body = effective(body, settings, provider)
        timeouts = timeouts_of(settings)
        dialect = self._dialect_for(provider, body, timeouts)
        request, notices = dialect.request(body)
        if body.get("stream"):
            request["stream"] = True
        return Attempt(
            provider=provider,
            dialect=dialect,
            model=body["model"] or "",
            model_is_named=bool(named),
            body=body,
            timeouts=timeouts,
            request=request,
            request_id=request_id,
            answer=dialect.new_answer(),
            needs=_needs(body),
            notices=notices,
        )

    def _dialect_for(self, provider: Provider, body: ChatBody, timeouts: Timeouts) -> Dialect:
        if not provider.is_ollama:
            return OpenAIDialect(provider, self._clients, timeouts)
        if any(body.get(name) is not None for name in NATIVE_ONLY):
            return OllamaDialect(self._ollamas.of(provider), self._windows)
        return OllamaV1Dialect(provider, self._clients, timeouts)


def effective(body: ChatBody, settings: SettingsValues, provider: Provider) -> ChatBody:
    """Return *body* with all its messages in `messages`, and with the settings for its absent fields."""
    prompt = body.get("system_prompt")
    filled: ChatBody = {
        **body,
        "model": body.get("model") or provider.model,
        "messages": with_prompt(new_messages(body), settings["system_prompt"] if prompt is None else prompt),
    }
    if filled.get("temperature") is None:
        filled["temperature"] = settings["temperature"]
    if provider.is_ollama:
        return with_model_defaults(filled, settings["model_defaults"])
    if filled.get("max_tokens") is None:  # this default is for other providers only
        filled["max_tokens"] = settings["max_tokens"]
    return filled


def new_messages(body: ChatBody) -> list[Message]:
    """Return the messages of *body*: its `messages`, and then its `message` with its `images`."""
    messages = list(body.get("messages", ()))
    if "message" in body:
        said: Message = {"role": "user", "content": body["message"]}
        if body.get("images"):
            said["images"] = body["images"]
        messages.append(said)
    return messages


def with_prompt(messages: list[Message], prompt: str | None) -> list[Message]:
    """Put the system prompt before *messages*, unless it is empty or they begin with a system message."""
    if not prompt or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": prompt}, *messages]


def with_model_defaults(body: ChatBody, defaults: Mapping[str, Mapping[str, Any]]) -> ChatBody:
    """Return *body* with the settings' `model_defaults` of its model for its absent fields."""
    key = key_of(body.get("model") or "")
    found = next((values for name, values in defaults.items() if key_of(name) == key), {})
    if not found:
        return body
    options = dict(body.get("options") or {})
    if found.get("num_ctx") is not None:
        options.setdefault("num_ctx", found["num_ctx"])
    silent = [name for name in ("keep_alive", "think") if body.get(name) is None]
    words = {name: found[name] for name in silent if name in found}
    return cast("ChatBody", {**body, **words, **({"options": options} if options else {})})


def _without(body: ChatBody, *names: str) -> ChatBody:
    return cast("ChatBody", {name: value for name, value in body.items() if name not in names})


def _needs(body: ChatBody) -> frozenset[str]:
    """Return the capabilities that the model must have to answer *body*."""
    needs = set()
    if any(message.get("images") for message in body["messages"]):
        needs.add("vision")
    if body.get("tools"):
        needs.add("tools")
    if body.get("think"):
        needs.add("thinking")
    return frozenset(needs)

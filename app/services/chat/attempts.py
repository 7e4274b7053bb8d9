"""Attempts at a chat: one request to the provider asked for, and one to the fallback when that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from app.errors import ServiceError
from app.schemas.chat import ChatBody
from app.schemas.messages import Message
from app.services.chat.context_window import ContextWindows
from app.services.chat.dialects.answers import Answer
from app.services.chat.dialects.base import Dialect, Request
from app.services.chat.dialects.ollama import NATIVE_ONLY, OllamaDialect
from app.services.chat.dialects.openai_requests import OLLAMA_ONLY, OllamaV1Dialect, OpenAIDialect
from app.services.ollama import OllamaServers, check_name, key_of
from app.services.providers import OpenAIClients, Provider, ProviderStore
from app.services.settings import SettingsStore

Settings = Mapping[str, Any]

Event = tuple[str, dict[str, Any]]
"""A name and its data, as a client reads them in a stream."""


@dataclass
class Attempt:
    """One request to one provider.

    :param body: the chat that it is for, with all its messages
    :param request: what is sent, in the provider's words, without the model
    :param needs: the capabilities that a model must have for it
    :param notices: what was done otherwise than asked
    """

    provider: Provider
    dialect: Dialect
    model: str
    model_is_named: bool
    body: ChatBody
    request: Request
    request_id: str
    answer: Answer
    needs: frozenset[str] = frozenset()
    notices: list[str] = field(default_factory=list)
    first_error: ServiceError | None = None  # of the attempt before, at another provider
    error: ServiceError | None = None
    started: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None
    ended_at: float | None = None
    reads: int = 0  # that brought a part of the answer
    is_started: bool = False  # the client of a stream knows who is asked
    is_done: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes as a stream."""
        return bool(self.request.get("stream"))

    @property
    def outcome(self) -> str:
        """How it ended: `ok`, an error's slug, or `client_left`."""
        if self.is_done:
            return "ok"
        return self.error.error_type if self.error else "client_left"

    @property
    def seconds(self) -> float:
        """How long it took, or takes so far."""
        return (self.ended_at or time.monotonic()) - self.started

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return "".join(self.answer.text)

    @property
    def thinking(self) -> str:
        """What the model has thought so far."""
        return "".join(self.answer.thoughts)


class Attempts:
    """Makes the attempts that a chat may take."""

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
        """Yield the attempt at the provider asked for, then the one at the fallback, where there is one.

        :raises ProviderNotFound: when the request names one that is not there
        :raises ProviderDisabled: when it is switched off
        """
        settings = self._settings.all()
        first = body.get("provider") or settings["default_provider"]
        provider = self._providers.get_enabled(first)
        wished = body.get("fallback_provider")
        if wished:
            self._providers.get_enabled(wished)
        yield self._make(provider, body, settings, request_id)
        second = wished if "fallback_provider" in body else settings["fallback_provider"]
        fallback = self._providers.all().get(second or "")
        if fallback and fallback.enabled and fallback.id != first:
            yield self._make_fallback(fallback, body, settings, request_id)

    def _make_fallback(
        self, provider: Provider, body: ChatBody, settings: Settings, request_id: str
    ) -> Attempt:
        """Return an attempt at another provider, with its own model, and without what it does not know."""
        unknown = () if provider.is_ollama else OLLAMA_ONLY
        left_out = [name for name in unknown if body.get(name) is not None]
        attempt = self._make(provider, _without(body, "model", *left_out), settings, request_id)
        if left_out:
            attempt.notices.append(f"{provider.name} does not know {', '.join(left_out)}: left out.")
        return attempt

    def _make(self, provider: Provider, body: ChatBody, settings: Settings, request_id: str) -> Attempt:
        """Return an attempt at *provider*.

        :raises InvalidModelName: for a name that Ollama would not accept
        :raises NotSupported: for what the provider does not know
        """
        named = body.get("model")
        if named and provider.is_ollama:
            check_name(named)
        body = effective(body, settings, provider)
        dialect = self._dialect_for(provider, body)
        request, notices = dialect.request(body)
        if body.get("stream"):
            request["stream"] = True
        return Attempt(
            provider=provider,
            dialect=dialect,
            model=body["model"] or "",
            model_is_named=bool(named),
            body=body,
            request=request,
            request_id=request_id,
            answer=dialect.new_answer(),
            needs=_needs(body),
            notices=notices,
        )

    def _dialect_for(self, provider: Provider, body: ChatBody) -> Dialect:
        if not provider.is_ollama:
            return OpenAIDialect(provider, self._clients, self._settings.timeouts)
        if any(body.get(name) is not None for name in NATIVE_ONLY):
            return OllamaDialect(self._ollamas.of(provider), self._windows)
        return OllamaV1Dialect(provider, self._clients, self._settings.timeouts)


def effective(body: ChatBody, settings: Settings, provider: Provider) -> ChatBody:
    """Return *body* as it is meant: with all its messages, and the settings where it says nothing."""
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
    if filled.get("max_tokens") is None:  # never sent to Ollama, unless the request asks for it
        filled["max_tokens"] = settings["max_tokens"]
    return filled


def new_messages(body: ChatBody) -> list[Message]:
    """Return the messages that *body* brings: its `messages`, and `message` with its `images` last."""
    messages = list(body.get("messages", ()))
    if "message" in body:
        said: Message = {"role": "user", "content": body["message"]}
        if body.get("images"):
            said["images"] = body["images"]
        messages.append(said)
    return messages


def with_prompt(messages: list[Message], prompt: str | None) -> list[Message]:
    """Put the system prompt before *messages*, unless they begin with one; an empty one is none."""
    if not prompt or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": prompt}, *messages]


def with_model_defaults(body: ChatBody, defaults: Mapping[str, Mapping[str, Any]]) -> ChatBody:
    """Return *body* with the settings' `model_defaults` of its model where it says nothing."""
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
    """Return the capabilities that a model must have for *body*."""
    needs = set()
    if any(message.get("images") for message in body["messages"]):
        needs.add("vision")
    if body.get("tools"):
        needs.add("tools")
    if body.get("think"):
        needs.add("thinking")
    return frozenset(needs)

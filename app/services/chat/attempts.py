"""From what is asked to the call of a provider: the settings filled in, and the way chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.model_name import ModelName
from app.schemas.settings import SettingsValues
from app.services.chat.attempt import Call
from app.services.chat.dialects.base import OLLAMA_ONLY
from app.services.chat.dialects.ollama import NativeRoute
from app.services.chat.dialects.openai_requests import OpenAIRoute
from app.services.ollama.names import check_name
from app.services.ollama.service import OllamaServers
from app.services.providers.openai_api import OpenAIClients
from app.services.providers.store import Provider, ProviderStore
from app.services.settings import SettingsStore

Json = dict[str, Any]

_SAMPLING = ("temperature", "top_p", "stop", "seed", "max_tokens")
_NATIVE = (*OLLAMA_ONLY, "think")
"""What Ollama's ``/v1`` passes over in silence, so that it goes by ``/api/chat``."""


class Calls:
    """Makes the calls that a chat may take."""

    def __init__(
        self,
        providers: ProviderStore,
        settings: SettingsStore,
        clients: OpenAIClients,
        ollamas: OllamaServers,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._clients = clients
        self._ollamas = ollamas

    def all(self, body: Json, request_id: str) -> Iterator[Call]:
        """Yield the call of the provider asked for, then the one of the fallback, where there is one.

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
            unknown = () if fallback.is_ollama else OLLAMA_ONLY
            left_out = [name for name in unknown if body.get(name) is not None]
            body = {name: value for name, value in body.items() if name not in {"model", *left_out}}
            call = self._make(fallback, body, settings, request_id)
            if left_out:
                call.notices.append(f"{fallback.name} does not know {', '.join(left_out)}: left out.")
            yield call

    def _make(self, provider: Provider, body: Json, settings: SettingsValues, request_id: str) -> Call:
        """Return the call of *provider*.

        :raises InvalidModelName: for a name that Ollama would not accept
        :raises NotSupported: for what the provider does not know
        """
        named = body.get("model")
        if named and provider.is_ollama:
            check_name(named)
        model = named or provider.model
        prompt = body.get("system_prompt")
        prompt = settings["system_prompt"] if prompt is None else prompt
        body = {**body, "messages": with_prompt(new_messages(body), prompt)}
        for name in _SAMPLING:
            if body.get(name) is None and not (name == "max_tokens" and provider.is_ollama):
                body[name] = settings.get(name)
        if provider.is_ollama:
            body = with_defaults(body, model, settings["model_defaults"])
        is_native = provider.is_ollama and any(body.get(name) is not None for name in _NATIVE)
        route = self._native(provider) if is_native else self._openai(provider)
        request, notices = route.request(body)
        if body.get("stream"):
            request["stream"] = True
        return Call(
            provider,
            model,
            bool(named),
            body,
            _needs(body),
            request,
            request_id,
            route,
            route.new_answer(),
            is_native,
            notices,
        )

    def _native(self, provider: Provider) -> NativeRoute:
        return NativeRoute(self._ollamas.of(provider))

    def _openai(self, provider: Provider) -> OpenAIRoute:
        return OpenAIRoute(provider, self._clients, self._settings.timeouts)


def new_messages(body: Json) -> list[Json]:
    """Return the messages that *body* brings: its `messages`, and `message` with its `images` last."""
    messages: list[Json] = list(body.get("messages", ()))
    if "message" in body:
        images = {"images": body["images"]} if body.get("images") else {}
        messages.append({"role": "user", "content": body["message"], **images})
    return messages


def with_prompt(messages: list[Json], prompt: str) -> list[Json]:
    """Put the system prompt before *messages*, unless they begin with one; an empty one is none."""
    if not prompt or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": prompt}, *messages]


def with_defaults(body: Json, model: str, defaults: Json) -> Json:
    """Return *body* with what the settings say of *model* where it says nothing."""
    found: Json = next((values for name, values in defaults.items() if _is_same(name, model)), {})
    options = dict(body.get("options") or {})
    if found.get("num_ctx") is not None:
        options.setdefault("num_ctx", found["num_ctx"])
    silent = [name for name in ("keep_alive", "think") if body.get(name) is None]
    words = {name: found[name] for name in silent if name in found}
    return {**body, **words, **({"options": options} if options else {})}


def _is_same(one: str, other: str) -> bool:
    try:
        return ModelName.parse(one).key == ModelName.parse(other).key
    except ValueError:
        return False


def _needs(body: Json) -> frozenset[str]:
    """Return the capabilities that a model must have for *body*."""
    needs = set()
    if any(message.get("images") for message in body["messages"]):
        needs.add("vision")
    if body.get("tools"):
        needs.add("tools")
    if body.get("think"):
        needs.add("thinking")
    return frozenset(needs)

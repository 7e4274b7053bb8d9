"""What clients of OpenAI's API see: the models of all providers, by one name each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from app.config import Timeouts
from app.errors import ServiceError
from app.model_name import DEFAULT_NAMESPACE
from app.services.catalog.absent import absent
from app.services.gateway.relay import RelayService
from app.services.gateway.relayed import Passage
from app.services.ollama.names import check_name, find_model, parse_listed
from app.services.ollama.service import OllamaService
from app.services.providers import openai_api as openai_client
from app.services.providers.openai_api import OpenAIClients
from app.services.providers.store import Provider, ProviderStore
from app.services.settings import SettingsStore

log = logging.getLogger(__name__)

Json = dict[str, Any]

_CONNECT_TIMEOUT = 1.0  # seconds that one provider may hold up the list of all
_LIST_TIMEOUT = 3.0


class FrontDoorService:
    """Answers in OpenAI's shapes.

    :param ollama_for: makes the service for an Ollama provider, with these timeouts
    """

    def __init__(
        self,
        providers: ProviderStore,
        settings: SettingsStore,
        clients: OpenAIClients,
        ollama_for: Callable[[Provider, Timeouts | None], OllamaService],
        relay: RelayService,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._clients = clients
        self._ollama_for = ollama_for
        self._relay = relay

    def ask(self, endpoint: str, body: Json, request_id: str) -> Generator[bytes, None, None]:
        """Pass *body* on; yields as :meth:`RelayService.send`.

        :param endpoint: ``chat/completions``, ``completions`` or ``embeddings``
        """
        provider_id, model = self.split(body.get("model") or "")
        return self._relay.send(Passage(endpoint, provider_id, model, body, request_id))

    def split(self, name: str) -> tuple[str, str]:
        """Return the provider's id and its own name of the model that is called *name* here."""
        return _split(name, self._providers.all(), self._settings.all()["default_provider"])

    def list_models(self) -> Json:
        """Return the models of all enabled providers that answer soon."""
        timeouts = self._settings.timeouts
        hasty = replace(
            timeouts,
            connect=min(timeouts.connect, _CONNECT_TIMEOUT),
            list=min(timeouts.list, _LIST_TIMEOUT),
        )
        providers = self._providers.all()
        default = self._settings.all()["default_provider"]

        def entries(provider: Provider) -> list[Json]:
            found = self._entries(provider, hasty)
            for entry in found:
                entry["id"] = _joined(provider.id, entry["id"], providers, default)
            return found

        lists = _each([provider for provider in providers.values() if provider.enabled], entries)
        return {"object": "list", "data": [entry for found in lists for entry in found]}

    def get_model(self, name: str) -> Json:
        """Return one model.

        :raises ModelNotFound: when its provider does not have it
        """
        provider_id, model = self.split(name)
        provider = self._providers.get_enabled(provider_id)
        timeouts = self._settings.timeouts
        if provider.is_ollama:
            ollama = self._ollama_for(provider, timeouts)
            found = find_model(ollama.list()["models"], str(check_name(model)))
            if found is None:
                raise ollama.model_not_found(model)
            return _ollama_entry(name, found)
        client = self._clients.get(provider, timeouts)
        offered = openai_client.list_models(client, provider, timeouts)["models"]
        for entry in offered:
            if entry["id"] == model:
                return _entry(name, provider, entry)
        raise absent(provider, model, [entry["id"] for entry in offered])

    def _entries(self, provider: Provider, timeouts: Timeouts) -> list[Json]:
        """Return the models of *provider*, by their own names."""
        if provider.is_ollama:
            models = self._ollama_for(provider, timeouts).list()["models"]
            return [_ollama_entry(model["name"], model) for model in models]
        client = self._clients.get(provider, self._settings.timeouts)
        offered = openai_client.list_models(client, provider, timeouts)["models"]
        return [_entry(entry["id"], provider, entry) for entry in offered]


def _split(name: str, ids: Container[str], default: str) -> tuple[str, str]:
    """Return the provider's id and its own name of a model.

    Names may hold slashes themselves: what is before the first one counts only when it is an id.
    """
    prefix, slash, rest = name.partition("/")
    return (prefix, rest) if slash and prefix in ids else (default, name)


def _joined(id: str, model: str, ids: Container[str], default: str) -> str:
    """Return what a provider's *model* is called here: bare, where that leads back to it."""
    return model if _split(model, ids, default) == (id, model) else f"{id}/{model}"


def _each(providers: Iterable[Provider], entries: Callable[[Provider], list[Json]]) -> list[list[Json]]:
    """Ask all providers at the same time; those that fail or are slow are left out."""
    futures: dict[str, Future[list[Json]]] = {}
    executor = ThreadPoolExecutor(max_workers=32, thread_name_prefix="list models")
    for provider in providers:
        futures[provider.id] = executor.submit(entries, provider)
    wait(futures.values(), timeout=_CONNECT_TIMEOUT + _LIST_TIMEOUT)
    executor.shutdown(wait=False, cancel_futures=True)
    found = []
    for id, future in futures.items():
        error = future.exception() if future.done() and not future.cancelled() else TimeoutError()
        if error is None:
            found.append(future.result())
        elif isinstance(error, ServiceError | TimeoutError):
            log.info("the models of %s are left out: %s", id, error)
        else:
            raise error
    return found


def _ollama_entry(id: str, model: Json) -> Json:
    name = parse_listed(model["name"])
    owner = name.namespace if name else DEFAULT_NAMESPACE
    created = int(model["modified_at"].timestamp())
    return {"id": id, "object": "model", "created": created, "owned_by": owner}


def _entry(id: str, provider: Provider, entry: Json) -> Json:
    created, owner = entry.get("created") or 0, entry.get("owned_by") or provider.id
    return {"id": id, "object": "model", "created": created, "owned_by": owner}

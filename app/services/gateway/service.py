"""What clients of OpenAI's API see: the models of all providers, by one name each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from app.errors import ServiceError
from app.schemas.providers import OfferedModel
from app.services.catalog.offers import Offers
from app.services.gateway.relay import RelayService
from app.services.gateway.relayed import Passage
from app.services.providers.store import Provider, ProviderStore
from app.services.settings import SettingsStore

log = logging.getLogger(__name__)

Json = dict[str, Any]

_CONNECT_TIMEOUT = 1.0  # seconds that one provider may hold up the list of all
_LIST_TIMEOUT = 3.0


class FrontDoorService:
    """Answers in OpenAI's shapes."""

    def __init__(
        self,
        providers: ProviderStore,
        settings: SettingsStore,
        offers: Offers,
        relay: RelayService,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._offers = offers
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
            offered = self._offers.of(provider, hasty).all()
            return [
                _entry(_joined(provider.id, model["id"], providers, default), provider, model)
                for model in offered
            ]

        lists = _each([provider for provider in providers.values() if provider.enabled], entries)
        return {"object": "list", "data": [entry for found in lists for entry in found]}

    def get_model(self, name: str) -> Json:
        """Return one model.

        :raises ModelNotFound: when its provider does not have it
        """
        provider_id, model = self.split(name)
        provider = self._providers.get_enabled(provider_id)
        return _entry(name, provider, self._offers.of(provider).find(model))


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


def _entry(id: str, provider: Provider, entry: OfferedModel) -> Json:
    created, owner = entry.get("created") or 0, entry.get("owned_by") or provider.id
    return {"id": id, "object": "model", "created": created, "owned_by": owner}

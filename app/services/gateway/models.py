"""List the models of all providers in OpenAI's format, each under one name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from app.errors import ServerStopping, ServiceError
from app.schemas.openai_v1 import OpenAIModel, OpenAIModelList
from app.schemas.providers import ProviderModel
from app.services.catalog import Offers
from app.services.gateway.service import split_name
from app.services.providers import Provider, ProviderStore
from app.services.settings import SettingsStore

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 1.0  # seconds; the list waits no longer than the sum of both for a slow provider
_LIST_TIMEOUT = 3.0


class GatewayModels:
    """The models of the enabled providers, in OpenAI's format."""

    def __init__(self, providers: ProviderStore, settings: SettingsStore, offers: Offers) -> None:
        self._providers = providers
        self._settings = settings
        self._offers = offers

    def list_models(self) -> OpenAIModelList:
        """Return the models of all enabled providers; leave out providers that fail or are slow."""
        timeouts = self._settings.timeouts
        hasty = replace(
            timeouts,
            connect=min(timeouts.connect, _CONNECT_TIMEOUT),
            list=min(timeouts.list, _LIST_TIMEOUT),
        )
        providers = self._providers.all()
        default = self._settings.all()["default_provider"]

        def entries(provider: Provider) -> list[OpenAIModel]:
            offered = self._offers.of(provider, hasty).all()
            return [
                _entry(_joined(provider.id, model["id"], providers, default), provider, model)
                for model in offered
            ]

        lists = _each([provider for provider in providers.values() if provider.enabled], entries)
        return {"object": "list", "data": [entry for found in lists for entry in found]}

    def get_model(self, name: str) -> OpenAIModel:
        """Return one model.

        :raises ModelNotFound: when the provider does not have the model
        """
        default = self._settings.all()["default_provider"]
        provider_id, model = split_name(name, self._providers.all(), default)
        provider = self._providers.get_enabled(provider_id)
        return _entry(name, provider, self._offers.of(provider).find(model))


def _joined(id: str, model: str, ids: Container[str], default: str) -> str:
    """Return the name of *model* in this API: without the provider's id if that is not ambiguous."""
    return model if split_name(model, ids, default) == (id, model) else f"{id}/{model}"


def _each(
    providers: Iterable[Provider], entries: Callable[[Provider], list[OpenAIModel]]
) -> list[list[OpenAIModel]]:
    """Call *entries* for all providers at once; leave out those that fail or are slow."""
    futures: dict[str, Future[list[OpenAIModel]]] = {}
    executor = ThreadPoolExecutor(max_workers=32, thread_name_prefix="list models")
    for provider in providers:
        futures[provider.id] = executor.submit(entries, provider)
    wait(futures.values(), timeout=_CONNECT_TIMEOUT + _LIST_TIMEOUT)
    executor.shutdown(wait=False, cancel_futures=True)  # a slow provider must not delay the answer
    found = []
    for id, future in futures.items():
        error = future.exception() if future.done() and not future.cancelled() else TimeoutError()
        if error is None:
            found.append(future.result())
        elif isinstance(error, ServerStopping):
            raise error
        elif isinstance(error, ServiceError | TimeoutError):
            log.info("the models of %s are left out: %s", id, error)
        else:  # a fault of this program, at its outermost edge: the other providers are listed nevertheless
            log.error("the models of %s are left out", id, exc_info=error)
    return found


def _entry(id: str, provider: Provider, entry: ProviderModel) -> OpenAIModel:
    created, owner = entry.get("created") or 0, entry.get("owned_by") or provider.id
    return {"id": id, "object": "model", "created": created, "owned_by": owner}

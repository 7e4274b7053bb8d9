"""Which models a provider has, whatever kind of provider it is.

:class:`Offers` chooses by the kind once; the two classes below answer the same questions, each in its way.
"""

from __future__ import annotations

from collections.abc import Set
from http import HTTPStatus
from typing import Protocol

from app.config import Timeouts
from app.errors import InvalidUpstreamResponse, ModelNotFound, ServiceError
from app.model_name import DEFAULT_NAMESPACE
from app.schemas.models import InstalledModel
from app.schemas.providers import ProviderModel
from app.services.catalog.absent import absent, cannot_embed, no_model_offered, not_offered
from app.services.catalog.default_model import (
    able_models,
    chat_model,
    configured_model,
    embedding_models,
    installed_model,
)
from app.services.ollama import OllamaServers, OllamaService, check_name, find_model, parse_listed
from app.services.providers import OpenAIClients, Provider
from app.services.settings import SettingsStore


class ProviderOffers(Protocol):
    """The models of one provider."""

    when_empty: str
    """What to do where the provider has no model."""
    when_invalid: str
    """What the provider's test says of an answer that is not its kind's."""

    def check_name(self, model: str, /) -> None:
        """Check a name that a client typed, before it is sent.

        :raises InvalidModelName: for a name that the provider cannot have
        """

    def version(self) -> str | None:
        """Return the version of the provider's server; None where its kind does not tell one."""

    def all(self) -> list[ProviderModel]:
        """Return all models."""

    def find(self, model: str) -> ProviderModel:
        """Return one model.

        :raises ModelNotFound: when the provider does not have it
        """

    def default(self, endpoint: str, /) -> str:
        """Return the model of a gateway's request that names none: the configured one, as far as it helps.

        :param endpoint: as in the paths below ``/v1``
        :raises InvalidRequest: when no model is configured, and none is there to choose
        :raises ModelNotFound: when no model is installed
        :raises CapabilityMissing: when no installed model can do it
        """

    def for_chat(self, needs: Set[str], /) -> str:
        """Return the model of a chat that names none, and whose configured model is not there.

        :param needs: capabilities that the chat would use, if a model has them
        :raises ModelNotFound: when there is no model
        """

    def lacking(self, model: str, needs: Set[str], /) -> tuple[list[str], list[str]]:
        """Return which of the capabilities *needs* a model lacks, and the models that have all of them.

        Both are empty where the provider does not tell what the model can do, or does not have it.
        """

    def absent(self, model: str) -> ServiceError:
        """Return the error for a chat's model that the provider says it does not have."""

    def explain(self, error: ServiceError, model: str, endpoint: str, /) -> ServiceError | None:
        """Return a better error for a request of a gateway that the provider refused; None for its own.

        :param endpoint: as in the paths below ``/v1``
        """


class Offers:
    """The models of each provider.

    :param ollamas: answers for the providers that are Ollama servers
    :param clients: answer for all others
    """

    def __init__(self, ollamas: OllamaServers, clients: OpenAIClients, settings: SettingsStore) -> None:
        self._ollamas = ollamas
        self._clients = clients
        self._settings = settings

    def of(self, provider: Provider, timeouts: Timeouts | None = None) -> ProviderOffers:
        """Return the models of *provider*, which is asked when one of the methods is called.

        :param timeouts: how long to wait for it; else those of the settings hold
        """
        if provider.is_ollama:
            return OllamaOffers(provider, self._ollamas, timeouts)
        return OpenAIOffers(provider, self._clients, self._settings, timeouts)


class OllamaOffers:
    """The models that are installed on an Ollama server."""

    when_empty = 'Pull one: POST /api/providers/ollama/pull {"model": "llama3.2:1b"}'
    when_invalid = "not_ollama"

    def __init__(self, provider: Provider, ollamas: OllamaServers, timeouts: Timeouts | None) -> None:
        self._provider = provider
        self._ollamas = ollamas
        self._timeouts = timeouts

    @property
    def _ollama(self) -> OllamaService:
        return self._ollamas.of(self._provider, self._timeouts)

    def _installed(self) -> list[InstalledModel]:
        return self._ollama.list()["models"]

    def check_name(self, model: str) -> None:
        """Check *model* by the grammar of Ollama's names."""
        check_name(model)

    def version(self) -> str:
        """Return the server's version."""
        return self._ollama.version()

    def all(self) -> list[ProviderModel]:
        """Return the installed models, the newest first."""
        return [_offered(model) for model in self._installed()]

    def find(self, model: str) -> ProviderModel:
        """Return the installed model that is called *model*, in upper or lower case.

        :raises InvalidModelName: for a name that no model can have
        :raises ModelNotFound: when it is not installed
        """
        found = find_model(self._installed(), str(check_name(model)))
        if found is None:
            raise self._ollama.model_not_found(model)
        return _offered(found)

    def default(self, endpoint: str) -> str:
        """Return the configured model if it is installed, else an installed one that can do it."""
        return installed_model(self._provider, self._installed(), endpoint)

    def for_chat(self, needs: Set[str]) -> str:
        """Return an installed model that can chat."""
        return chat_model(self._provider, self._installed(), needs)

    def lacking(self, model: str, needs: Set[str]) -> tuple[list[str], list[str]]:
        """Compare the capabilities; an Ollama before 0.30 lists none, but shows those of a single model."""
        installed = self._installed()
        found = find_model(installed, model) if model else None
        if found is None:
            return [], []
        abilities = found.get("capabilities") or self._ollama.show(model)["capabilities"]
        if not abilities:
            return [], []
        return sorted(needs - set(abilities)), able_models(installed, needs)

    def absent(self, model: str) -> ServiceError:
        """Say what is installed, if the server still tells."""
        try:
            return self._ollama.model_not_found(model)
        except ServiceError:
            return absent(self._provider, model, [])

    def explain(self, error: ServiceError, model: str, _endpoint: str) -> ServiceError | None:
        """Say what is installed, or which models make embeddings."""
        if isinstance(error, ModelNotFound):
            return self._ollama.model_not_found(model)
        if error.details.get("upstream_status") == HTTPStatus.NOT_IMPLEMENTED:
            return cannot_embed(embedding_models(self._installed()), model)
        return None


class OpenAIOffers:
    """The models that an OpenAI-compatible provider lists."""

    when_empty = "Load a model there."
    when_invalid = "error"

    def __init__(
        self, provider: Provider, clients: OpenAIClients, settings: SettingsStore, timeouts: Timeouts | None
    ) -> None:
        self._provider = provider
        self._clients = clients
        self._settings = settings
        self._timeouts = timeouts

    def check_name(self, _model: str) -> None:
        """Accept any name: only the provider knows its names."""

    def version(self) -> None:
        """Return None: the API tells no version."""

    def all(self) -> list[ProviderModel]:
        """Return the models that the provider lists, in its order."""
        # The settings' own timeouts: for others the client would be replaced.
        limit = self._timeouts.list if self._timeouts else None
        return self._clients.list_models(self._provider, self._settings.timeouts, limit=limit)["models"]

    def find(self, model: str) -> ProviderModel:
        """Return the model whose id is *model*.

        :raises ModelNotFound: when the provider does not list it
        """
        offered = self.all()
        found = next((entry for entry in offered if entry["id"] == model), None)
        if found is None:
            raise absent(self._provider, model, [entry["id"] for entry in offered])
        return found

    def default(self, _endpoint: str) -> str:
        """Return the configured model."""
        return configured_model(self._provider)

    def for_chat(self, _needs: Set[str]) -> str:
        """Return the first model that the provider lists."""
        offered = self.all()
        if not offered:
            raise no_model_offered(self._provider)
        return offered[0]["id"]

    def lacking(self, _model: str, _needs: Set[str]) -> tuple[list[str], list[str]]:
        """Return nothing: the list does not tell what a model can do."""
        return [], []

    def absent(self, model: str) -> ServiceError:
        """Say what the provider lists; where it lists nothing valid, the address is wrong, not the model."""
        try:
            return absent(self._provider, model, self._ids())
        except InvalidUpstreamResponse as exc:
            return exc
        except ServiceError:
            return absent(self._provider, model, [])

    def explain(self, error: ServiceError, model: str, endpoint: str) -> ServiceError | None:
        """Say what the provider lists, or that it has the model but not the endpoint."""
        if not isinstance(error, ModelNotFound):
            return None
        try:
            available = self._ids()
        except ServiceError:
            available = []
        return not_offered(self._provider, model, endpoint, available)

    def _ids(self) -> list[str]:
        return [entry["id"] for entry in self.all()]


def _offered(model: InstalledModel) -> ProviderModel:
    """Return an installed model as an OpenAI-compatible provider would list it."""
    name = parse_listed(model["name"])
    return {
        "id": model["name"],
        "created": int(model["modified_at"].timestamp()),
        "owned_by": name.namespace if name else DEFAULT_NAMESPACE,
    }

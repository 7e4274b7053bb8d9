"""The models of a provider of any kind.

:class:`Offers` looks at the provider's kind once, and returns one of two classes with the same methods:
:class:`OllamaOffers` or :class:`OpenAIOffers`.
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
    """The hint for a provider that has no model."""
    when_invalid: str
    """The status of a provider's test when the answer is not valid for its kind."""

    def check_name(self, model: str, /) -> None:
        """Check a model name that a client sent, before it is sent to the provider.

        :raises InvalidModelName: for a name that the provider cannot have
        """

    def version(self) -> str | None:
        """Return the version of the provider's server; None if its API does not tell it."""

    def all(self) -> list[ProviderModel]:
        """Return all models."""

    def find(self, model: str) -> ProviderModel:
        """Return one model.

        :raises ModelNotFound: when the provider does not have it
        """

    def default(self, endpoint: str, /) -> str:
        """Return the model for a request below ``/v1`` that names none.

        This is the configured model. On an Ollama server it is an installed model, if the configured model
        is not installed or not meant for *endpoint*.

        :param endpoint: the path below ``/v1``, such as ``embeddings``
        :raises InvalidRequest: when an OpenAI-compatible provider has no configured model
        :raises ModelNotFound: when no installed model can chat
        :raises CapabilityMissing: when no installed model can make embeddings
        """

    def for_chat(self, needs: Set[str], /) -> str:
        """Return a model for a chat that names none, when the configured model is missing too.

        :param needs: capabilities that the chat needs; a model that has them is preferred
        :raises ModelNotFound: when there is no model
        """

    def lacking(self, model: str, needs: Set[str], /) -> tuple[list[str], list[str]]:
        """Return which of the capabilities *needs* *model* lacks, and which models have all of them.

        Both are empty when the provider does not tell the model's capabilities, or does not have the model.
        """

    def absent(self, model: str) -> ServiceError:
        """Return the error for the *model* of a chat, after the provider answered that it is missing."""

    def explain(self, error: ServiceError, model: str, endpoint: str, /) -> ServiceError | None:
        """Return a more helpful error than *error* for a request below ``/v1`` that the provider refused.

        :param endpoint: the path below ``/v1``
        :return: None to keep *error*
        """


class Offers:
    """The models of each provider.

    :param ollamas: lists the models of Ollama servers
    :param clients: list the models of all other providers
    """

    def __init__(self, ollamas: OllamaServers, clients: OpenAIClients, settings: SettingsStore) -> None:
        self._ollamas = ollamas
        self._clients = clients
        self._settings = settings

    def of(self, provider: Provider, timeouts: Timeouts | None = None) -> ProviderOffers:
        """Return the models of *provider*. Each method call asks the provider; this call does not.

        :param timeouts: how long to wait; None for the timeouts of the settings
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
        """Return the installed model with the name *model*; case does not matter.

        :raises InvalidModelName: for a name that no model can have
        :raises ModelNotFound: when it is not installed
        """
        found = find_model(self._installed(), str(check_name(model)))
        if found is None:
            raise self._ollama.model_not_found(model)
        return _offered(found)

    def default(self, endpoint: str) -> str:
        """Return the configured model if it is installed, else an installed one that suits *endpoint*."""
        return installed_model(self._provider, self._installed(), endpoint)

    def for_chat(self, needs: Set[str]) -> str:
        """Return an installed model that can chat."""
        return chat_model(self._provider, self._installed(), needs)

    def lacking(self, model: str, needs: Set[str]) -> tuple[list[str], list[str]]:
        """Return the missing capabilities, and the installed models that have all of them."""
        installed = self._installed()
        found = find_model(installed, model) if model else None
        if found is None:
            return [], []
        # Ollama before 0.30 does not list capabilities; it shows those of a single model.
        abilities = found.get("capabilities") or self._ollama.show(model)["capabilities"]
        if not abilities:
            return [], []
        return sorted(needs - set(abilities)), able_models(installed, needs)

    def absent(self, model: str) -> ServiceError:
        """Return an error that lists the installed models, if the server still answers."""
        try:
            return self._ollama.model_not_found(model)
        except ServiceError:
            return absent(self._provider, model, [])

    def explain(self, error: ServiceError, model: str, _endpoint: str) -> ServiceError | None:
        """Return an error that lists the installed models, or those that make embeddings."""
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
        """Accept any name: only the provider knows which names are valid."""

    def version(self) -> None:
        """Return None: OpenAI's API does not tell a version."""

    def all(self) -> list[ProviderModel]:
        """Return the models that the provider lists, in its order."""
        # Always the timeouts of the settings: a client with other timeouts would replace the kept client.
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
        """Return two empty lists: OpenAI's list of models does not tell capabilities."""
        return [], []

    def absent(self, model: str) -> ServiceError:
        """Return an error that lists the provider's models."""
        try:
            return absent(self._provider, model, self._ids())
        except InvalidUpstreamResponse as exc:
            return exc  # no valid list: base_url is wrong, not the model
        except ServiceError:
            return absent(self._provider, model, [])

    def explain(self, error: ServiceError, model: str, endpoint: str) -> ServiceError | None:
        """Return an error that lists the provider's models, or says that the model lacks the endpoint."""
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
    """Return an installed model in the form in which an OpenAI-compatible provider lists its models."""
    name = parse_listed(model["name"])
    return {
        "id": model["name"],
        "created": int(model["modified_at"].timestamp()),
        "owned_by": name.namespace if name else DEFAULT_NAMESPACE,
    }

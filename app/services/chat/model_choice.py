"""Which model answers where the request names none, and what is said of one that cannot."""

from __future__ import annotations

from typing import Any

from app.errors import CapabilityMissing, InvalidUpstreamResponse, ModelNotFound, ServiceError
from app.model_name import ModelName
from app.services.catalog.absent import absent
from app.services.chat.attempts import Attempt
from app.services.ollama.names import find_model
from app.services.ollama.service import OllamaServers
from app.services.providers import openai_api as openai_client
from app.services.providers.openai_api import OpenAIClients
from app.services.settings import SettingsStore

Json = dict[str, Any]

_WHAT = {"vision": "look at images", "tools": "use tools", "thinking": "think"}


class ModelChoice:
    """Chooses models, and explains why one cannot be used."""

    def __init__(self, ollamas: OllamaServers, clients: OpenAIClients, settings: SettingsStore) -> None:
        self._ollamas = ollamas
        self._clients = clients
        self._settings = settings

    def prepare(self, attempt: Attempt) -> None:
        """Choose a model where the attempt has none, and see to it that it can do what is asked.

        :raises ModelNotFound: when the provider has no model
        :raises CapabilityMissing: when the model cannot do it; it names models that can
        """
        if not attempt.model:
            self._choose(attempt)
        self._check(attempt)

    def replace(self, attempt: Attempt, missing: ModelNotFound) -> None:
        """Choose another model for an attempt whose configured one is not installed on Ollama.

        :raises ModelNotFound: when the request names the model, and for other providers
        """
        if attempt.model_is_named or not attempt.provider.is_ollama:
            raise self._not_found(attempt) from missing
        self._choose(attempt)
        self._check(attempt)

    def _choose(self, attempt: Attempt) -> None:
        absent = attempt.model
        if attempt.provider.is_ollama:
            attempt.model = self._ollamas.of(attempt.provider).first_chat_model(attempt.needs)
        else:
            attempt.model = self._offered(attempt)[0]
        why = f"'{absent}' is not installed" if absent else "the settings name no model"
        attempt.notices.append(f"Answered by '{attempt.model}': the request names no model and {why}.")

    def _check(self, attempt: Attempt) -> None:
        """See to it that the model can do what the request needs, where its server tells."""
        if not attempt.needs or not attempt.provider.is_ollama:
            return
        ollama = self._ollamas.of(attempt.provider)
        models = ollama.list()["models"]
        found = find_model(models, ModelName.parse(attempt.model)) if attempt.model else None
        if found is None:  # the provider itself says that it is not there
            return
        abilities = found.get("capabilities") or ollama.show(attempt.model)["capabilities"]
        missing = sorted(attempt.needs - set(abilities)) if abilities else []
        if not missing:
            return
        able = [model["name"] for model in models if attempt.needs <= set(model.get("capabilities", ()))]
        if attempt.model_is_named or not able:
            raise _cannot(attempt, missing, able)
        attempt.notices.append(f"Answered by '{able[0]}': '{attempt.model}' cannot {_what(missing)}.")
        attempt.model = able[0]

    def _not_found(self, attempt: Attempt) -> ServiceError:
        """Return the error for a model that the provider does not have."""
        try:
            if attempt.provider.is_ollama:
                return self._ollamas.of(attempt.provider).model_not_found(attempt.model)
            available = self._offered(attempt)
        except InvalidUpstreamResponse as exc:
            if not attempt.provider.is_ollama:  # no list either: it is the address that is wrong
                return exc
            available = []
        except ServiceError:
            available = []
        return absent(attempt.provider, attempt.model, available)

    def _offered(self, attempt: Attempt) -> list[str]:
        timeouts = self._settings.timeouts
        client = self._clients.get(attempt.provider, timeouts)
        models = openai_client.list_models(client, attempt.provider, timeouts)
        names = [model["id"] for model in models["models"]]
        if not names:
            raise ModelNotFound(
                f"{attempt.provider.name} offers no model.",
                hint="Load one there, then ask again.",
                details={"available": []},
            )
        return names


def _what(missing: list[str]) -> str:
    return " and ".join(_WHAT[name] for name in missing)


def _cannot(attempt: Attempt, missing: list[str], able: list[str]) -> CapabilityMissing:
    hint = f"These can: {', '.join(able[:10])}." if able else "No installed model can; pull one that does."
    return CapabilityMissing(
        f"The model '{attempt.model}' cannot {_what(missing)}.",
        hint=hint,
        details={"model": attempt.model, "missing": missing, "available": able},
    )

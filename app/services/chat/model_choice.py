"""Which model answers where the request names none, and what is said of one that cannot."""

from __future__ import annotations

from typing import Any

from app.errors import CapabilityMissing, InvalidUpstreamResponse, ModelNotFound, ServiceError
from app.services.catalog.absent import absent
from app.services.chat.attempt import Call
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

    def choose(self, call: Call) -> None:
        """Choose a model that is there for a call that names none.

        :raises ModelNotFound: when there is none
        """
        absent = call.model
        if call.provider.is_ollama:
            call.model = self._ollamas.of(call.provider).first_chat_model(call.needs)
        else:
            call.model = self._offered(call)[0]
        why = f"'{absent}' is not installed" if absent else "the settings name no model"
        call.notices.append(f"Answered by '{call.model}': the request names no model and {why}.")

    def check(self, call: Call) -> None:
        """See to it that the model can do what the request needs, where its server tells.

        :raises CapabilityMissing: when it cannot; it names models that can
        """
        if not call.needs or not call.provider.is_ollama:
            return
        ollama = self._ollamas.of(call.provider)
        models = ollama.list()["models"]
        found = find_model(models, call.model) if call.model else None
        if found is None:  # the provider itself says that it is not there
            return
        abilities = found.get("capabilities") or ollama.show(call.model)["capabilities"]
        missing = sorted(call.needs - set(abilities)) if abilities else []
        if not missing:
            return
        able = [model["name"] for model in models if call.needs <= set(model.get("capabilities", ()))]
        if call.model_is_named or not able:
            raise _cannot(call, missing, able)
        call.notices.append(f"Answered by '{able[0]}': '{call.model}' cannot {_what(missing)}.")
        call.model = able[0]

    def not_found(self, call: Call) -> ServiceError:
        """Return the error for a model that the provider does not have."""
        try:
            if call.provider.is_ollama:
                return self._ollamas.of(call.provider).model_not_found(call.model)
            available = self._offered(call)
        except InvalidUpstreamResponse as exc:
            if not call.provider.is_ollama:  # no list either: it is the address that is wrong
                return exc
            available = []
        except ServiceError:
            available = []
        return absent(call.provider, call.model, available)

    def _offered(self, call: Call) -> list[str]:
        timeouts = self._settings.timeouts
        client = self._clients.get(call.provider, timeouts)
        models = openai_client.list_models(client, call.provider, timeouts)
        names = [model["id"] for model in models["models"]]
        if not names:
            raise ModelNotFound(
                f"{call.provider.name} offers no model.",
                hint="Load one there, then ask again.",
                details={"available": []},
            )
        return names


def _what(missing: list[str]) -> str:
    return " and ".join(_WHAT[name] for name in missing)


def _cannot(call: Call, missing: list[str], able: list[str]) -> CapabilityMissing:
    hint = f"These can: {', '.join(able[:10])}." if able else "No installed model can; pull one that does."
    return CapabilityMissing(
        f"The model '{call.model}' cannot {_what(missing)}.",
        hint=hint,
        details={"model": call.model, "missing": missing, "available": able},
    )

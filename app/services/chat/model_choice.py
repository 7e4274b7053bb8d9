"""Choose a model when the request names none, and refuse models that lack a needed capability."""

from __future__ import annotations

from app.errors import CapabilityMissing, ModelNotFound, ServiceError
from app.services.catalog import Offers
from app.services.chat.attempts import Attempt

_WHAT = {"vision": "look at images", "tools": "use tools", "thinking": "think"}  # after "The model cannot"


class ModelChoice:
    """Chooses the models of attempts."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    def prepare(self, attempt: Attempt) -> None:
        """Choose a model if the attempt has none, and check its capabilities.

        :raises ModelNotFound: when the provider has no model
        :raises CapabilityMissing: when the model lacks a capability; the error names models that have it
        """
        if not attempt.model:
            self._choose(attempt)
        self._check(attempt)

    def replace(self, attempt: Attempt, missing: ModelNotFound) -> None:
        """Choose another model when the configured one is not installed on Ollama.

        :raises ModelNotFound: when the request itself names the model, or the provider is not Ollama
        """
        if attempt.model_is_named or not attempt.provider.is_ollama:
            raise self._not_found(attempt) from missing
        self._choose(attempt)
        self._check(attempt)

    def _choose(self, attempt: Attempt) -> None:
        absent = attempt.model
        attempt.model = self._offers.of(attempt.provider).for_chat(attempt.needs)
        why = f"'{absent}' is not installed" if absent else "the settings name no model"
        attempt.notices.append(f"Answered by '{attempt.model}': the request names no model and {why}.")

    def _check(self, attempt: Attempt) -> None:
        """Check the capabilities of the model, if its server tells them; choose another model if need be.

        :raises CapabilityMissing: when the request names the model, or no other model has the capabilities
        """
        if not attempt.needs:
            return
        missing, able = self._offers.of(attempt.provider).lacking(attempt.model, attempt.needs)
        if not missing:
            return
        if attempt.model_is_named or not able:
            raise _cannot(attempt, missing, able)
        attempt.notices.append(f"Answered by '{able[0]}': '{attempt.model}' cannot {_what(missing)}.")
        attempt.model = able[0]

    def _not_found(self, attempt: Attempt) -> ServiceError:
        return self._offers.of(attempt.provider).absent(attempt.model)


def _what(missing: list[str]) -> str:
    return " and ".join(_WHAT[name] for name in missing)


def _cannot(attempt: Attempt, missing: list[str], able: list[str]) -> CapabilityMissing:
    hint = f"These can: {', '.join(able[:10])}." if able else "No installed model can; pull one that can."
    return CapabilityMissing(
        f"The model '{attempt.model}' cannot {_what(missing)}.",
        hint=hint,
        details={"model": attempt.model, "missing": missing, "available": able},
    )

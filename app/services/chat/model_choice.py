"""Which model answers where the request names none, and what is said of one that cannot."""

from __future__ import annotations

from app.errors import CapabilityMissing, ServiceError
from app.services.catalog.offers import Offers
from app.services.chat.attempt import Call

_WHAT = {"vision": "look at images", "tools": "use tools", "thinking": "think"}


class ModelChoice:
    """Chooses models, and explains why one cannot be used."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    def choose(self, call: Call) -> None:
        """Choose a model that is there for a call that names none.

        :raises ModelNotFound: when there is none
        """
        absent = call.model
        call.model = self._offers.of(call.provider).for_chat(call.needs)
        why = f"'{absent}' is not installed" if absent else "the settings name no model"
        call.notices.append(f"Answered by '{call.model}': the request names no model and {why}.")

    def check(self, call: Call) -> None:
        """See to it that the model can do what the request needs, where its server tells.

        :raises CapabilityMissing: when it cannot; it names models that can
        """
        if not call.needs:
            return
        missing, able = self._offers.of(call.provider).lacking(call.model, call.needs)
        if not missing:
            return
        if call.model_is_named or not able:
            raise _cannot(call, missing, able)
        call.notices.append(f"Answered by '{able[0]}': '{call.model}' cannot {_what(missing)}.")
        call.model = able[0]

    def not_found(self, call: Call) -> ServiceError:
        """Return the error for a model that the provider does not have."""
        return self._offers.of(call.provider).absent(call.model)


def _what(missing: list[str]) -> str:
    return " and ".join(_WHAT[name] for name in missing)


def _cannot(call: Call, missing: list[str], able: list[str]) -> CapabilityMissing:
    hint = f"These can: {', '.join(able[:10])}." if able else "No installed model can; pull one that does."
    return CapabilityMissing(
        f"The model '{call.model}' cannot {_what(missing)}.",
        hint=hint,
        details={"model": call.model, "missing": missing, "available": able},
    )

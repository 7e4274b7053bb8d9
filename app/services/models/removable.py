"""Judge which models are safe to remove, from their last use, the settings and the kept versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.schemas.models import InstalledModel
from app.schemas.running import RunningModel
from app.services.models.memory import in_memory
from app.services.ollama import key_of
from app.storage.database import KeptVersion

Verdict = tuple[bool, str]

IDLE = timedelta(days=30)
"""A model that was not used for this long is safe to remove."""
TWIN_IDLE = timedelta(days=7)
"""The same, for a name whose model has another name too: the layers stay under the other name."""


@dataclass(frozen=True)
class Known:
    """The facts that decide which models are safe to remove.

    :param uses: the last use of each model through this program, by the model's key
    :param watched_since: when this program began to record uses; earlier uses are unknown
    :param protected: the keys of the models that must not be deleted
    :param pinned: the keys of the models that are not updated automatically
    :param running: the models in memory
    :param kept: the former versions, the newest first
    """

    uses: Mapping[str, datetime]
    watched_since: datetime
    protected: frozenset[str]
    pinned: frozenset[str]
    running: Sequence[RunningModel]
    kept: list[KeptVersion]
    now: datetime


def verdicts(listed: Iterable[InstalledModel], known: Known) -> dict[str, Verdict]:
    """Return whether each of the *listed* models is safe to remove, and the reason, by the model's key."""
    models = {key_of(model["name"]): model for model in listed}
    kept = {key_of(row.name): row for row in known.kept}
    keepers = _keepers(models, kept, known)
    found: dict[str, Verdict] = {}
    for key, model in models.items():
        if reason := _must_stay(key, model, known):
            found[key] = False, reason
        elif key in kept and not _was_used_lately(key, known):
            found[key] = _of_former(kept[key], models, known)
        else:
            found[key] = _of_model(key, model, keepers.get(key), known)
    return found


def _must_stay(key: str, model: InstalledModel, known: Known) -> str:
    """Return why a model must stay even when it is not used; empty if it need not stay."""
    if key in known.protected:
        return "It is one of the protected_models of the settings."
    if key in known.pinned:
        return "It is one of the pinned_models of the settings."
    return "It is in memory." if in_memory(known.running, model) else ""


def _of_model(key: str, model: InstalledModel, keeper: str | None, known: Known) -> Verdict:
    idle, used = _idle_for(key, model, known), known.uses.get(key)
    since = _day(used) if used else f"{_day(known.watched_since)}, when this server began to record uses"
    if idle >= IDLE:
        return True, f"It was not used through this server since {since}."
    if keeper and idle >= TWIN_IDLE:
        return True, f"It is the same as {keeper}, and was not used under this name since {since}."
    last = max(model["modified_at"], used or known.watched_since)
    if last == used:
        return False, f"It was used on {_day(last)}."
    if last == model["modified_at"]:
        return False, f"It was installed on {_day(last)}."
    return False, f"Nothing is known of its use before {_day(last)}."


def _of_former(row: KeptVersion, models: Mapping[str, InstalledModel], known: Known) -> Verdict:
    """Judge a former version that an update has kept, and that was not used under its own name."""
    installed = models.get(row.key)
    if row.status == "pending":
        return False, f"The update of {row.model} is not over."
    if installed is None:
        return False, f"It is the last version of {row.model} that is installed."
    if installed["digest"] == row.digest:
        return True, f"It is the same as {row.model}."
    ways_back = [
        other
        for other in known.kept
        if other.key == row.key
        and other.status == "kept"
        and other.digest != installed["digest"]
        and key_of(other.name) in models
    ]
    # The newest comes first: it is the one that a rollback installs.
    if ways_back[0].name != row.name:
        return True, f"A rollback of {row.model} leads to a newer version than this one."
    if known.now - row.created_at >= IDLE:
        return True, f"{row.model} was updated on {_day(row.created_at)} and not rolled back since."
    return False, f"A rollback of {row.model} leads to it."


def _was_used_lately(key: str, known: Known) -> bool:
    used = known.uses.get(key)
    return used is not None and known.now - used < IDLE


def _idle_for(key: str, model: InstalledModel, known: Known) -> timedelta:
    """Return how long a model has not been used: since its last known use or its installation."""
    return known.now - max(model["modified_at"], known.uses.get(key) or known.watched_since)


def _keepers(
    models: Mapping[str, InstalledModel], kept: Mapping[str, KeptVersion], known: Known
) -> dict[str, str]:
    """Return, for models with several names, the name to keep, by the key of each other name."""

    def worth(key: str) -> tuple[bool, bool, timedelta, str]:
        idle = _idle_for(key, models[key], known)
        return bool(_must_stay(key, models[key], known)), key not in kept, -idle, key

    found = {}
    for group in _same(models):
        keeper = max(group, key=worth)
        found.update({key: models[keeper]["name"] for key in group if key != keeper})
    return found


def _same(models: Mapping[str, InstalledModel]) -> Iterable[list[str]]:
    groups: dict[str, list[str]] = {}
    for key, model in models.items():
        groups.setdefault(model["digest"], []).append(key)
    return groups.values()


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"

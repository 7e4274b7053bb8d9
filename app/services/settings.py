"""What a person prefers: the settings that change while the program runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from app.config import Timeouts
from app.schemas.settings import SettingsSchema
from app.storage.json_file import Json, JsonFile

_DEFAULTS: Json = {
    "default_provider": "ollama",
    "fallback_provider": None,
    "system_prompt": "",
    "temperature": None,
    "max_tokens": None,
    "pinned_models": [],
    "protected_models": [],
    "keep_versions": 1,
    "model_defaults": {},
}
_PULLS: Json = {"window": None, "max_bytes_per_second": None, "keep_days": 30}
_USAGE: Json = {"keep_days": 365}
_UPDATES: Json = {
    "enabled": False,
    "time": "03:00",
    "window": {"from": "01:00", "to": "06:00"},
    "skip_loaded": True,
}


class SettingsStore:
    """The person's settings over the defaults.

    :param path: where they are kept
    :param timeouts: the defaults, from the environment
    """

    def __init__(self, path: Path, timeouts: Timeouts) -> None:
        self._file = JsonFile(path, _check_stored)
        self._timeouts = asdict(timeouts)

    @property
    def damage(self) -> str:
        """Say what is wrong with the kept settings, if anything is."""
        self._file.read()
        return self._file.damage

    def all(self) -> Json:
        """Return the settings in force."""
        stored = self._file.read()
        timeouts = {**self._timeouts, **stored.get("timeouts", {})}
        updates = {**_UPDATES, **stored.get("updates", {})}
        pulls = {**_PULLS, **stored.get("pulls", {})}
        usage = {**_USAGE, **stored.get("usage", {})}
        groups = {"timeouts": timeouts, "updates": updates, "pulls": pulls, "usage": usage}
        return {**_DEFAULTS, **stored, **groups}

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts in force."""
        return Timeouts(**self.all()["timeouts"])

    @property
    def hasty_timeouts(self) -> Timeouts:
        """The timeouts for what is good to know and not worth a wait."""
        return replace(self.timeouts, connect=1, list=2)

    def update(self, **values: Any) -> Json:
        """Change some settings; of its groups too, only those given."""

        def change(stored: Json) -> None:
            for group in values.keys() & {"timeouts", "updates", "pulls", "usage", "model_defaults"}:
                values[group] = {**stored.get(group, {}), **values[group]}
            if "model_defaults" in values:
                values["model_defaults"] = _without_none(values["model_defaults"])
            stored.update(values)

        self._file.update(change)
        return self.all()


def _without_none(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _check_stored(data: Json) -> None:
    try:
        SettingsSchema().load(data)
    except ValidationError as exc:
        raise ValueError("not an object of settings") from exc

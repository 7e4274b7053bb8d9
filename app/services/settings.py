"""Keep the settings that a user changes while the program runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from marshmallow import ValidationError

from app.config import Timeouts
from app.schemas.settings import (
    PullSettings,
    SettingsSchema,
    SettingsValues,
    TimeoutValues,
    UpdateSettings,
    UsageSettings,
)
from app.storage.json_file import Json, JsonFile

_PULLS: PullSettings = {"window": None, "max_bytes_per_second": None, "keep_days": 30}
_USAGE: UsageSettings = {"keep_days": 365}
_UPDATES: UpdateSettings = {
    "enabled": False,
    "time": "03:00",
    "window": {"from": "01:00", "to": "06:00"},
    "skip_loaded": True,
}
_GROUPS = ("timeouts", "updates", "pulls", "usage", "model_defaults")


def _defaults(timeouts: Timeouts) -> SettingsValues:
    return {
        "default_provider": "ollama",
        "fallback_provider": None,
        "system_prompt": "",
        "temperature": None,
        "max_tokens": None,
        "timeouts": cast("TimeoutValues", asdict(timeouts)),
        "pinned_models": [],
        "protected_models": [],
        "keep_versions": 1,
        "model_defaults": {},
        "updates": _UPDATES,
        "pulls": _PULLS,
        "usage": _USAGE,
    }


class SettingsStore:
    """The settings: the defaults, overridden by the changes in a file.

    :param path: the file, which holds only the changed settings
    :param timeouts: the default timeouts, from the environment
    """

    def __init__(self, path: Path, timeouts: Timeouts) -> None:
        self._file = JsonFile(path, _check_stored)
        self._defaults = _defaults(timeouts)
        self._in_force: tuple[Json, SettingsValues, Timeouts] | None = None  # and the changes they come from

    @property
    def damage(self) -> str:
        """What is wrong with the file; empty when nothing is."""
        self._file.read()
        return self._file.damage

    def all(self) -> SettingsValues:
        """Return the settings in force. The caller must not change them."""
        return self._look()[1]

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts in force."""
        return self._look()[2]

    def hasty_timeouts(self) -> Timeouts:
        """Return short timeouts, for requests whose answer is useful but not worth a long wait."""
        return replace(self.timeouts, connect=1, first_byte=2, list=2)

    def update(self, **values: Any) -> SettingsValues:
        """Change the settings in *values*; all others stay as they are, also inside of a group."""

        def change(stored: Json) -> None:
            for group in values.keys() & set(_GROUPS):
                values[group] = _merged(stored.get(group, {}), values[group])
            if "model_defaults" in values:
                values["model_defaults"] = _without_none(values["model_defaults"])
            stored.update(values)

        self._file.update(change)
        return self.all()

    def _look(self) -> tuple[Json, SettingsValues, Timeouts]:
        """Return the changes in the file, and what is in force with them, made anew when the file changed."""
        stored, known = self._file.read(), self._in_force
        if known is None or known[0] is not stored:
            values = dict(self._defaults)
            groups = {name: _merged(values[name], stored.get(name, {})) for name in _GROUPS}
            settings = cast("SettingsValues", {**values, **stored, **groups})
            known = self._in_force = (stored, settings, timeouts_of(settings))
        return known


def timeouts_of(settings: SettingsValues) -> Timeouts:
    """Return the timeouts of *settings*."""
    return Timeouts(**settings["timeouts"])


def _merged(under: Any, over: Any) -> Json:
    return {**under, **over}


def _without_none(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _check_stored(data: Json) -> None:
    try:
        SettingsSchema().load(data)
    except ValidationError as exc:
        raise ValueError("not an object of settings") from exc

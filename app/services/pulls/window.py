"""The part of the day in which pulls may run."""

from __future__ import annotations

from datetime import datetime

from app.services.pulls.schedule import is_open
from app.services.settings import SettingsStore
from app.storage.tables import Pull


def may_run(pull: Pull, settings: SettingsStore) -> bool:
    """Tell whether *pull* may run at this time of the day."""
    window = settings.all()["pulls"]["window"]
    return pull.anytime or is_open(window, datetime.now().astimezone())

"""Automatic updates: once a day, in a time window, when the settings enable them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from app.errors import PullFinished, PullNotFound, ServiceError
from app.services.models import VersionStore
from app.services.pulls import Occasions, PullService, is_open, occasion
from app.services.settings import SettingsStore
from app.services.updates.service import UpdateService

log = logging.getLogger(__name__)

_NAME = "updates"


def local_now() -> datetime:
    """Return the local time."""
    return datetime.now().astimezone()


@dataclass(frozen=True)
class DailyUpdate:
    """Updates all models once a day."""

    settings: SettingsStore
    occasions: Occasions
    versions: VersionStore
    pulls: PullService
    updates: UpdateService
    clock: Callable[[], datetime] = local_now

    def tick(self) -> None:
        """Start the updates when they are due; outside the time window, pause the updates that still run."""
        settings = self.settings.all()["updates"]
        if not settings["enabled"]:
            return
        now = self.clock()
        if not is_open(settings["window"], now):
            self._pause()
            return
        due = occasion(settings["time"], settings["window"], now)
        if due is not None and self.occasions.claim(_NAME, due):
            self._update(due, include_loaded=not settings["skip_loaded"])

    def _update(self, due: datetime, *, include_loaded: bool) -> None:
        try:
            done = self.updates.start(None, include_loaded=include_loaded, automatic=True)
        except ServiceError as exc:
            log.warning("no automatic updates for now: %s", exc.message)
            self.occasions.release(_NAME, due)
        else:
            log.info("%d models are updated, %d are left", len(done["started"]), len(done["skipped"]))

    def _pause(self) -> None:
        """Pause the pulls of automatic updates, each only once: a pull that a user resumes goes on."""
        for row in self.versions.all():
            if row.automatic and row.status == "pending" and row.pull_id:
                row.automatic = False  # from now on, the user controls the pull
                self.versions.save(row)
                try:
                    self.pulls.pause(row.pull_id)
                except (PullFinished, PullNotFound):
                    continue

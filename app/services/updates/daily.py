"""Updates that nobody asks for: once a day, in quiet hours, when they are switched on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.errors import PullFinished, PullNotFound, ServiceError
from app.services.models.versions import VersionStore
from app.services.pulls.schedule import Occasions, is_open, occasion
from app.services.pulls.service import PullService

Json = dict[str, Any]

log = logging.getLogger(__name__)

_NAME = "updates"


def local_now() -> datetime:
    """Return the time in this machine's zone."""
    return datetime.now().astimezone()


@dataclass(frozen=True)
class AutoUpdate:
    """What the workers' scheduler looks after.

    :param settings: the settings' `updates`
    :param update: updates all models; the keyword `include_loaded` says whether those in memory too
    """

    settings: Json
    occasions: Occasions
    versions: VersionStore
    pulls: PullService
    update: Callable[..., Json]
    clock: Callable[[], datetime] = local_now

    def tick(self) -> None:
        """Update the models when it is time; outside of the window, pause what still runs."""
        if not self.settings["enabled"]:
            return
        now = self.clock()
        if not is_open(self.settings["window"], now):
            self._pause()
            return
        due = occasion(self.settings["time"], self.settings["window"], now)
        if due is not None and self.occasions.claim(_NAME, due):
            self._update(due)

    def _update(self, due: datetime) -> None:
        try:
            done = self.update(include_loaded=not self.settings["skip_loaded"])
        except ServiceError as exc:
            log.warning("no automatic updates for now: %s", exc.message)
            self.occasions.release(_NAME, due)
        else:
            log.info("%d models are updated, %d are left", len(done["started"]), len(done["skipped"]))

    def _pause(self) -> None:
        """Pause the automatic pulls, once: who resumes one by hand is not interrupted again."""
        for row in self.versions.all():
            if row.automatic and row.status == "pending" and row.pull_id:
                row.automatic = False
                self.versions.save(row)
                try:
                    self.pulls.change(row.pull_id, "paused")
                except (PullFinished, PullNotFound):
                    continue

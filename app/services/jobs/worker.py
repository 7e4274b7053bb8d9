"""The work of the workers: run pulls, and do the recurring chores."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.errors import PullNotFound, ServiceError
from app.services.conversations import Imports, LateAnswers
from app.services.models import ModelUses, VersionService
from app.services.ollama import OllamaServers, RegistryService
from app.services.pulls import IdempotencyService, PullRun, PullStore, may_run, new_owner
from app.services.settings import SettingsStore
from app.services.updates import DailyUpdate
from app.services.usage import UsageLog
from app.storage.tables import Pull

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PullWorker:
    """Runs pulls, at the times and with the speed that the settings allow.

    :param versions: settles, after each pull, the updates whose pulls are over
    :param stopping: is set when the process ends
    :param max_pulls: how many pulls may run at once, in all processes together
    """

    store: PullStore
    ollamas: OllamaServers
    registry: RegistryService
    versions: VersionService
    settings: SettingsStore
    stopping: threading.Event
    max_pulls: int

    def run(self, id: str) -> None:
        """Run a pull, unless it has to wait or another worker runs it."""
        owner = new_owner()
        ollama = self.ollamas.main()  # before the claim: a pull that no worker can run stays in the queue
        pull = self._claim(id, owner)
        if pull is None:
            return
        PullRun(
            self.store,
            ollama,
            self.registry,
            pull,
            owner,
            self.stopping,
            self._may_run,
            self._limit,
        ).run()
        with _or_later():
            self.versions.settle()

    def _claim(self, id: str, owner: str) -> Pull | None:
        try:
            may_run = self._may_run(self.store.get(id))
        except PullNotFound:  # a client deleted the finished pull before its task ran
            return None
        return self.store.claim(id, owner, self.max_pulls) if may_run else None

    def _may_run(self, pull: Pull) -> bool:
        return may_run(pull, self.settings)

    def _limit(self) -> float | None:
        limit: float | None = self.settings.all()["pulls"]["max_bytes_per_second"]
        return limit


@dataclass(frozen=True)
class Chores:
    """The recurring chores: settle and start updates, and delete old rows."""

    settings: SettingsStore
    uses: ModelUses
    keys: IdempotencyService
    pulls: PullStore
    calls: UsageLog
    imports: Imports
    late_answers: LateAnswers
    versions: VersionService
    updates: DailyUpdate

    def do(self) -> None:
        """Do all chores."""
        settings = self.settings.all()
        self.late_answers.save()
        self.uses.since()  # its first call, in any process, stores the time from which uses are recorded
        self.keys.prune()
        self.pulls.prune(settings["pulls"]["keep_days"])
        self.imports.clean()
        with _or_later():
            self.versions.settle()
            self.updates.tick()
        self.calls.prune(settings["usage"]["keep_days"])


@contextmanager
def _or_later() -> Iterator[None]:
    """Leave the work on updates in this block to the next chores when Ollama does not answer."""
    try:
        yield
    except ServiceError as exc:
        log.info("updates are left for later: %s", exc.message)

"""Run a pull in a worker: ask Ollama to pull, and ask it again after stalls and temporary failures."""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

from app.errors import (
    InvalidModelName,
    PullFailed,
    ServerStopping,
    ServiceError,
    StorageFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnavailable,
    kept,
    server_failed,
)
from app.schemas.pulls import PullPart
from app.services.ollama import OllamaService, RegistryService, check_name
from app.services.pulls.progress import LEAD, LIMITED_WINDOW, WINDOW, Progress, Throttle
from app.services.pulls.store import PullStore
from app.storage.tables import Pull

log = logging.getLogger(__name__)

REPORT_INTERVAL = 0.5  # seconds between two reports to the database
STALL_LIMIT = 60.0  # seconds without a new byte, after which the run asks Ollama again
GIVE_UP_AFTER = 600.0  # seconds of failures without a new byte, after which the pull fails
_LONGEST_PAUSE = 15.0  # seconds between two attempts

_FINAL = re.compile(  # messages of Ollama after which another attempt cannot succeed
    "does not exist|invalid model|no space left|mismatch|than its manifest says|TLS handshake"
    r"|unauthorized|pull model manifest: 40[0-9]"
)


class _TooFast(Exception):
    """The pull is too far ahead of its limit of bytes per second, and has to wait."""


class _Stopped(Exception):
    """The run has to stop; the argument is the pull's new status, or `lost` if another worker runs it."""


@dataclass
class PullRun:
    """One worker's run of one pull.

    :param stopping: is set when the process ends; the pull then goes back to the queue
    :param may_run: tells whether the pull may run at this time of the day; if not, it goes back to the queue
    :param limit: returns the bytes per second that all running pulls share, or None for no limit
    """

    store: PullStore
    ollama: OllamaService
    registry: RegistryService
    pull: Pull
    owner: str
    stopping: threading.Event
    may_run: Callable[[Pull], bool] = lambda _: True
    limit: Callable[[], float | None] = lambda: None
    attempts: int = 0
    progress: Progress = field(init=False)
    _reported: float = 0.0
    _grew: float = 0.0  # when the last new byte came
    _share: float | None = None  # this pull's share of the limit, in bytes per second

    def __post_init__(self) -> None:
        pull = self.pull
        self.progress = Progress(pull.layers, pull.total, pull.percent, pull.status_log)
        self.attempts = pull.attempts
        self._grew = time.monotonic()
        self._throttle = Throttle(self._grew)

    def run(self) -> None:
        """Run the pull until it is done, fails, or is stopped.

        :raises StorageFailed: when the database fails; the pull is to be taken up again
        """
        log.info("pull of %s started", self.pull.model)
        try:
            self._learn_total()
            self._pull_on()
        except _Stopped as stopped:
            status = str(stopped)
            log.info("pull of %s: %s", self.pull.model, status)
            if status != "lost":
                self._settle(status)
        except StorageFailed:  # the pull looks abandoned: a worker takes it up when the database is back
            log.warning("pull of %s is left to be taken up again", self.pull.model)
            raise
        except ServiceError as exc:
            log.warning("pull of %s failed: %s", self.pull.model, exc.message)
            self._settle("failed", kept(exc))
        except Exception:  # the job's outermost edge: clients that wait for the pull must learn of its end
            log.exception("pull of %s failed", self.pull.model)
            self.store.settle(self.pull.id, self.owner, "failed", None, kept(server_failed()))
        else:
            self.progress.finish()
            self._settle("done")
            log.info("pull of %s done", self.pull.model)

    def _settle(self, status: str, error: dict[str, Any] | None = None) -> None:
        id, owner = self.pull.id, self.owner
        self.store.settle(id, owner, status, self.progress, error, attempts=self.attempts)

    def _learn_total(self) -> None:
        """Ask the registry for the size; if that fails, the total comes from Ollama's progress lines."""
        if self.progress.total is None:
            try:
                name = check_name(self.pull.model)
                self.progress.total = self.registry.manifest(name, insecure=self.pull.insecure).size
            except ServiceError as exc:
                log.info("no manifest of %s: %s", self.pull.model, exc.message)

    def _pull_on(self) -> None:
        """Ask Ollama to pull until it succeeds, or a failure is final."""
        failures = 0
        while True:
            before = self.progress.completed
            self.attempts += 1
            try:
                self._attempt()
            except _TooFast:
                self._rest()
            except ServerStopping:
                raise _Stopped("queued") from None
            except StorageFailed:  # no fault of the pull
                raise
            except ServiceError as exc:
                failures = 0 if self.progress.completed > before else failures + 1
                if self._is_final(exc):
                    raise
                log.info("pull of %s is asked for again: %s", self.pull.model, exc.message)
                self._pause(min(0.5 * 2**failures, _LONGEST_PAUSE))
            else:
                return

    def _attempt(self) -> None:
        lines = self.ollama.pull(self.pull.model, insecure=self.pull.insecure)
        with closing(cast("Generator[PullPart | None, None, None]", lines)) as parts:
            self._follow(parts)

    def _follow(self, parts: Generator[PullPart | None, None, None]) -> None:
        moved = time.monotonic()
        for part in parts:
            now = time.monotonic()
            if part is not None:
                before = self.progress.completed
                self.progress.feed(part, now)
                if part["digest"]:
                    self._throttle.take(part["digest"], self.progress.layers.get(part["digest"], 0))
                if self.progress.completed > before:
                    self._grew = moved = now
                elif not part["digest"]:
                    moved = now
            self._report(now)
            if self.progress.step.startswith("pulling") and now - moved > STALL_LIMIT:
                raise UpstreamTimeout(f"No byte came for {STALL_LIMIT:g} seconds.")
            if self._throttle.lead(self._share, now) > LEAD and self.progress.is_downloading:
                raise _TooFast

    def _report(self, now: float) -> None:
        if self.stopping.is_set():
            raise _Stopped("queued")
        if now - self._reported < REPORT_INTERVAL:
            return
        if not self.may_run(self.pull):
            raise _Stopped("queued")
        self._reported = now
        self._share = self._share_of_limit()
        self.progress.window = LIMITED_WINDOW if self._share else WINDOW
        speed = self.progress.bytes_per_second(now)
        wanted = self.store.report(self.pull.id, self.owner, self.progress, speed, self.attempts)
        if wanted != "running":
            raise _Stopped(wanted)

    def _share_of_limit(self) -> float | None:
        limit = self.limit()
        return limit / max(1, self.store.running()) if limit else None

    def _rest(self) -> None:
        """Wait, without a connection to Ollama, until the pull is no longer ahead of its limit."""
        while self._throttle.lead(self._share, time.monotonic()) > 0:
            self._pause(0.1)
        self._grew = time.monotonic()  # the wait does not count for GIVE_UP_AFTER

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._report(now)
            self.stopping.wait(0.1)

    def _is_final(self, exc: ServiceError) -> bool:
        """Tell whether another attempt cannot succeed, or no new byte came for too long."""
        said = exc.details.get("upstream_error", "") if isinstance(exc, PullFailed) else ""
        if isinstance(exc, InvalidModelName) or _FINAL.search(said) or "max_line_bytes" in exc.details:
            return True
        if isinstance(exc, UpstreamUnavailable | UpstreamIncomplete) and self.ollama.is_supervised:
            return time.monotonic() - self._grew > GIVE_UP_AFTER  # the server died, and is started again
        return not self.progress.layers or time.monotonic() - self._grew > GIVE_UP_AFTER


def new_owner() -> str:
    """Return a unique id for a run."""
    return uuid.uuid4().hex

"""Start, pause, resume, cancel and watch pulls, which run on when their client leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, Protocol

from app.errors import (
    PullActive,
    PullCancelled,
    PullFinished,
    PullWaits,
    ServerStopping,
    ServiceError,
    UpstreamTimeout,
    restored,
    server_failed,
)
from app.schemas.pulls import PullResult, PullSummary, PullValues
from app.services.ollama import key_of
from app.services.pulls.feed import PullFeeds
from app.services.pulls.plan import PlanService
from app.services.pulls.schedule import is_open
from app.services.pulls.store import PullStore, is_finished, summary
from app.services.settings import SettingsStore
from app.storage.tables import KeptVersion, Pull, PullEvent
from app.upstream.reading import TICK

Event = tuple[str, dict[str, Any], int]
"""The name, the data and the number of an event."""

_NEVER = 2**62  # above the number of any event: a wait for it ends with the pull


class Versions(Protocol):
    """Keeps the installed version of a model that a pull is going to replace."""

    def keep_installed(self, model: str) -> KeptVersion | None:
        """Keep the installed version of *model*; return None if the model is not installed."""

    def begun(self, row: KeptVersion, pull_id: str) -> None:
        """Store which pull replaces the version in *row*."""


class PullService:
    """The operations on pulls.

    :param plans: checks the registry of a model, and whether the model fits on the disk
    :param feeds: the events for all watchers in this process
    :param enqueue: gives a pull, by its id, to a worker
    :param stopping: is set when this process ends
    """

    def __init__(
        self,
        store: PullStore,
        plans: PlanService,
        versions: Versions,
        settings: SettingsStore,
        feeds: PullFeeds,
        enqueue: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._plans = plans
        self._versions = versions
        self._settings = settings
        self._feeds = feeds
        self._enqueue = enqueue
        self._stopping = stopping

    def start(self, model: str, *, insecure: bool, now: bool = False, force: bool = False) -> PullSummary:
        """Start pulling *model*, or join its active pull.

        :param now: pull even outside the time window for pulls
        :param force: pull even when the model does not fit on the disk
        :raises RegistryNotAllowed: when models may not come from that registry
        :raises DiskFull: when the model does not fit on the disk
        """
        name = self._plans.allowed_name(model, insecure=insecure)
        if not force:
            self._plans.check_disk(name, insecure=insecure)
        pull = self._store.join(model, key_of(model), insecure=insecure, anytime=now)
        self._enqueue(pull.id)
        return summary(pull)

    def pause(self, id: str) -> PullSummary:
        """Pause a pull; a running one stops at its next report.

        :raises PullFinished: when the pull is over
        """
        return self._want(self._store.get(id), "paused", "pause")

    def cancel(self, id: str) -> PullSummary:
        """Cancel a pull; Ollama keeps the downloaded bytes.

        :raises PullFinished: when the pull is over
        """
        return self._want(self._store.get(id), "cancelled", "cancel")

    def resume(self, id: str) -> PullSummary:
        """Go on with a paused pull; for a failed or cancelled pull, start a new one of the same model.

        Before a new pull, the installed version of the model is kept.

        :raises PullFinished: when the pull is done
        """
        pull = self._store.get(id)
        if pull.status not in {"failed", "cancelled"}:
            return self._want(pull, "running", "resume")
        kept = self._versions.keep_installed(pull.model)
        resumed = self.start(pull.model, insecure=pull.insecure, now=pull.anytime, force=True)
        if kept is not None:
            self._versions.begun(kept, resumed["id"])
        return resumed

    def _want(self, pull: Pull, wanted: str, verb: str) -> PullSummary:
        if is_finished(pull):
            raise PullFinished(
                f"The pull of '{pull.model}' is {pull.status}: there is nothing to {verb}.",
                details={"id": pull.id, "status": pull.status},
            )
        pull = self._store.want(pull.id, wanted)
        self._enqueue(pull.id)
        return summary(pull)

    def wait(self, id: str, timeout: float) -> Generator[list[tuple[str, dict[str, Any]]], None, None]:
        """Wait for the end of a pull: yield an empty list in each tick, and at last `done` with the result.

        :raises UpstreamTimeout: after *timeout* seconds; the pull goes on
        :raises PullWaits: when the pull may not run at this time of the day
        :raises ServerStopping: when this process ends first; the next process goes on with the pull
        :raises ServiceError: the error that made the pull fail, or that of a database that fails for too long
        """
        deadline = time.monotonic() + timeout
        waiting = self._store.get(id)
        self._check_window(waiting)
        with self._feeds.watch(id) as feed:
            while (pull := feed.after(_NEVER, TICK)[1]) is None:
                yield []
                self._check_stopping(id)
                if time.monotonic() > deadline:
                    raise _too_long(waiting, timeout)
        yield [("done", {**_result(pull)})]

    def _check_stopping(self, id: str) -> None:
        if self._stopping.is_set():
            raise ServerStopping(
                "The server is stopping.",
                hint="The pull goes on when the server is started again. Ask again then.",
                details={"id": id},
            )

    def _check_window(self, pull: Pull) -> None:
        if pull.status == "queued" and not may_run(pull, self._settings):
            raise PullWaits(
                f"The pull of '{pull.model}' waits in the background for the time of day when pulls may run.",
                hint='Ask again with "now": true, or change `pulls.window` with PUT /api/settings.',
                details={"model": pull.model, "id": pull.id},
            )

    def get(self, id: str) -> PullValues:
        """Return a pull, with its log."""
        pull = self._store.get(id)
        return {**summary(pull), "status_log": pull.status_log}

    def result(self, id: str) -> PullResult:
        """Return the result of a finished pull.

        :raises ServiceError: the error that made the pull fail
        """
        return _result(self._store.get(id))

    def all(self) -> list[PullSummary]:
        """Return all pulls, the newest first."""
        return [summary(pull) for pull in self._store.all()]

    def delete(self, id: str) -> None:
        """Delete a finished pull.

        :raises PullActive: when the pull is not finished
        """
        pull = self._store.get(id)
        if not is_finished(pull):
            raise _active(pull, f"Cancel it first: POST /api/providers/ollama/pulls/{id}/cancel")
        self._store.delete(id)

    def watch(self, id: str, after: int, request_id: str) -> Generator[list[Event], None, None]:
        """Yield the events of a pull after the one numbered *after*, until it is over.

        Yields an empty list in each silent tick. The last event is `done` with the result, `error` with the
        error body, or `cancelled`.

        :raises ServerStopping: when this process ends first; the client can go on watching at the next one
        :raises PullNotFound: when the pull does not exist, or is deleted meanwhile
        :raises ServiceError: when the database fails for too long; the pull goes on
        """
        with self._feeds.watch(id) as feed:
            if after > feed.newest:  # no event of this pull has that number: the client has seen none of them
                after = 0
            while True:
                events, pull = feed.after(after, TICK)
                if events:
                    after = events[-1].seq
                    yield [_event(e, pull, request_id) for e in events]
                elif pull is None:
                    yield []
                if pull is not None:
                    return
                self._check_stopping(id)


def _event(event: PullEvent, pull: Pull | None, request_id: str) -> Event:
    """Return an event for the client; the last one has the result or the error from the row of the *pull*."""
    data: dict[str, Any] = event.data
    if event.name == "done" and pull is not None:
        data = {**data, **_result(pull)}
    elif event.name == "error" and pull is not None:
        data = _error(pull).body(request_id)
    return event.name, data, event.seq


def _error(pull: Pull) -> ServiceError:
    return restored(pull.error) if pull.error else server_failed()


def _too_long(pull: Pull, timeout: float) -> UpstreamTimeout:
    return UpstreamTimeout(
        f"The pull of '{pull.model}' takes longer than {timeout:g} seconds. It goes on in the background.",
        hint=f"Follow it: GET /api/providers/ollama/pulls/{pull.id}",
        details={"model": pull.model, "id": pull.id},
    )


def _result(pull: Pull) -> PullResult:
    """Return the result of a pull that is done.

    :raises ServiceError: when the pull is not done: its error, or why there is no result
    """
    if pull.status == "failed":
        raise _error(pull)
    if pull.status == "cancelled":
        raise PullCancelled(
            f"The pull of '{pull.model}' was cancelled.",
            hint="Pull it again; Ollama has kept the downloaded bytes.",
            details={"model": pull.model, "id": pull.id},
        )
    if pull.status != "done":
        raise _active(pull, f"Follow it: GET /api/providers/ollama/pulls/{pull.id}")
    return {
        "success": True,
        "message": f"Model '{pull.model}' pulled successfully",
        "model": pull.model,
        "status_log": pull.status_log,
    }


def _active(pull: Pull, hint: str) -> PullActive:
    return PullActive(
        f"The pull of '{pull.model}' is {pull.status}.",
        hint=hint,
        details={"id": pull.id, "status": pull.status},
    )


def may_run(pull: Pull, settings: SettingsStore) -> bool:
    """Tell whether *pull* may run at this time of the day."""
    window = settings.all()["pulls"]["window"]
    return pull.anytime or window is None or is_open(window, datetime.now().astimezone())

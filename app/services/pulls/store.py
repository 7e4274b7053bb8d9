"""Store pulls and their events in the database, where every process can read and change them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import PullNotFound
from app.schemas.pulls import PullProgress, PullSummary
from app.services.pulls.progress import Progress
from app.storage.database import Database
from app.storage.tables import ACTIVE, FINISHED, Pull, PullEvent, is_fresh, utc_now

STALE_AFTER = timedelta(seconds=6)
"""How long a worker may go without a report; then another worker may take its pull."""

_IS_RUNNING = Pull.status == "running"

# PostgreSQL makes one claim at a time: two claims at once would not count each other's pull.
_CLAIM_LOCK = 7301144


class PullStore:
    """The rows of the pulls and their events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, id: str) -> Pull:
        """Return a pull.

        :raises PullNotFound: when no pull has that id
        """
        with self._database.session() as session:
            return _get(session, id)

    def all(self) -> list[Pull]:
        """Return all pulls, the newest first."""
        with self._database.session() as session:
            return [*session.scalars(select(Pull).order_by(Pull.created_at.desc(), Pull.id))]

    def join(self, model: str, key: str, *, insecure: bool, anytime: bool = False) -> Pull:
        """Return the active pull of *key*, and resume it if it is paused; else return a new pull.

        :param key: the model's full name in lower case
        :param anytime: let the pull run outside the time window for pulls
        """
        while True:
            with self._database.writing() as session:
                query = select(Pull).where(Pull.key == key, Pull.status.in_(ACTIVE)).with_for_update()
                pull = session.scalar(query)
                if pull is not None:
                    if pull.wanted != "running" or pull.status == "paused":
                        _want(session, pull, "running")
                    pull.anytime = pull.anytime or anytime
                    return pull
            try:
                with self._database.session() as session:
                    id = uuid.uuid4().hex
                    pull = Pull(id=id, model=model, key=key, insecure=insecure, anytime=anytime)
                    session.add(pull)
                    session.flush()
                    _tell(session, pull, "progress")
                    return pull
            except IntegrityError:
                continue  # another request has just started this pull: join it

    def want(self, id: str, wanted: str) -> Pull:
        """Store the status that the user wants; a pull without a worker gets it at once."""
        with self._database.writing() as session:
            pull = _get(session, id, lock=True)
            if pull.status in ACTIVE:
                _want(session, pull, wanted)
            return pull

    def delete(self, id: str) -> None:
        """Delete a pull."""
        with self._database.session() as session:
            session.execute(delete(PullEvent).where(PullEvent.pull_id == id))
            session.delete(_get(session, id))

    def prune(self, days: int) -> None:
        """Delete the pulls that finished more than *days* days ago."""
        old = (Pull.status.in_(FINISHED)) & (Pull.updated_at < utc_now() - timedelta(days=days))
        with self._database.session() as session:
            session.execute(delete(PullEvent).where(PullEvent.pull_id.in_(select(Pull.id).where(old))))
            session.execute(delete(Pull).where(old))

    def waiting(self) -> list[str]:
        """Return the ids of the pulls that need a worker: queued pulls, and pulls whose worker died."""
        with self._database.session() as session:
            query = select(Pull.id).where((Pull.status == "queued") | (_IS_RUNNING & ~_is_alive()))
            return [*session.scalars(query.order_by(Pull.created_at))]

    def running(self) -> int:
        """Return how many pulls run, in all processes."""
        alive = select(func.count()).select_from(Pull).where(_IS_RUNNING, _is_alive())
        with self._database.session() as session:
            return session.scalar(alive) or 0

    def claim(self, id: str, owner: str, limit: int) -> Pull | None:
        """Let *owner* run the pull; return None if it needs no worker, or if *limit* pulls run already."""
        now = utc_now()
        free = (Pull.status == "queued") | (_IS_RUNNING & ~_is_alive())
        running = select(func.count()).select_from(Pull).where(_IS_RUNNING, _is_alive()).scalar_subquery()
        with self._database.writing(_CLAIM_LOCK) as session:
            claimed = session.execute(
                update(Pull)
                .where(Pull.id == id, free, running < limit)
                .values(status="running", owner=owner, heartbeat_at=now, updated_at=now)
            )
            return _get(session, id) if claimed.rowcount else None  # type: ignore[attr-defined]

    def report(self, id: str, owner: str, progress: Progress, speed: float, attempts: int) -> str:
        """Save the progress of *owner*'s run; return the wanted status, or `lost` if *owner* has lost it."""
        with self._database.writing() as session:
            pull = _get(session, id, lock=True)
            if pull.owner != owner or pull.status != "running":
                return "lost"
            changed = (pull.completed, pull.percent, len(pull.status_log), pull.attempts)
            _copy(pull, progress, speed, attempts)
            if changed != (pull.completed, pull.percent, len(pull.status_log), pull.attempts):
                _tell(session, pull, "progress")
            return pull.wanted

    def settle(
        self,
        id: str,
        owner: str,
        status: str,
        progress: Progress | None,
        error: dict[str, Any] | None = None,
        *,
        attempts: int | None = None,
    ) -> None:
        """End *owner*'s run of the pull with *status* and the last progress.

        If the pull is neither done nor failed, it gets the status that the user wants: the user may have
        changed it since the last report.
        """
        with self._database.writing() as session:
            pull = _get(session, id, lock=True)
            if pull.owner != owner or pull.status != "running":
                return
            if progress is not None:
                _copy(pull, progress, 0.0, pull.attempts if attempts is None else attempts)
            pull.error = error
            if status not in FINISHED or status == "cancelled":
                status = "queued" if pull.wanted == "running" else pull.wanted
            _settle(session, pull, status)

    def is_finished(self, id: str) -> bool:
        """Tell whether a pull is done, failed or cancelled.

        :raises PullNotFound: when no pull has that id
        """
        with self._database.session() as session:
            status = session.scalar(select(Pull.status).where(Pull.id == id))
        if status is None:
            raise _not_found(id)
        return status in FINISHED

    def events(self, id: str, after: int) -> list[PullEvent]:
        """Return the events of a pull after the one numbered *after*, in order."""
        with self._database.session() as session:
            query = select(PullEvent).where(PullEvent.pull_id == id, PullEvent.seq > after)
            return [*session.scalars(query.order_by(PullEvent.seq))]


def summary(pull: Pull) -> PullSummary:
    """Return a pull for an answer of the API, without its log."""
    return {
        **_progress(pull),
        "error": pull.error,
        "created_at": pull.created_at,
        "updated_at": pull.updated_at,
    }


def _progress(pull: Pull) -> PullProgress:
    left = None if pull.total is None else pull.total - pull.completed
    running = pull.status == "running"
    speed = pull.bytes_per_second if running else 0.0
    return {
        "id": pull.id,
        "model": pull.model,
        "status": pull.status,
        "completed": pull.completed,
        "total": pull.total,
        "percent": pull.percent,
        "bytes_per_second": round(speed),
        "eta_seconds": round(left / speed) if left is not None and speed >= 1 else None,
        "step": pull.status_log[-1]["status"] if pull.status_log else "",
        "attempts": pull.attempts,
    }


def _is_alive() -> ColumnElement[bool]:
    """Return the SQL condition that the worker of a running pull has reported lately."""
    alive: ColumnElement[bool] = is_fresh(Pull.heartbeat_at, STALE_AFTER)
    return alive


def _get(session: Session, id: str, *, lock: bool = False) -> Pull:
    pull = session.get(Pull, id, with_for_update=lock or None)
    if pull is None:
        raise _not_found(id)
    return pull


def _not_found(id: str) -> PullNotFound:
    return PullNotFound(f"There is no pull '{id[:64]}'.", hint="GET /api/providers/ollama/pulls lists them.")


def _want(session: Session, pull: Pull, wanted: str) -> None:
    pull.wanted = wanted
    idle = pull.status != "running" or not is_fresh(pull.heartbeat_at, STALE_AFTER)
    if idle:
        _settle(session, pull, "queued" if wanted == "running" else wanted)


def _settle(session: Session, pull: Pull, status: str) -> None:
    """Set the status of a pull that has no worker any more, and add an event."""
    pull.status, pull.owner, pull.bytes_per_second = status, "", 0.0
    pull.updated_at = utc_now()
    names = {"done": "done", "failed": "error", "cancelled": "cancelled"}
    _tell(session, pull, names.get(status, "progress"))


def _copy(pull: Pull, progress: Progress, speed: float, attempts: int) -> None:
    pull.completed, pull.total, pull.percent = progress.completed, progress.total, progress.percent
    pull.layers, pull.status_log = progress.layers, progress.log
    pull.bytes_per_second, pull.attempts = speed, attempts
    pull.heartbeat_at = pull.updated_at = utc_now()


def _tell(session: Session, pull: Pull, name: str) -> None:
    pull.seq += 1
    session.add(PullEvent(pull_id=pull.id, seq=pull.seq, name=name, data=_progress(pull)))


def is_finished(pull: Pull) -> bool:
    """Tell whether a pull is done, failed or cancelled."""
    return pull.status in FINISHED

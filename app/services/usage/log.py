"""What the calls to providers took: written beside them, summed up when asked."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.exc import InterfaceError, OperationalError

from app.services.usage import report as usage_report
from app.storage.database import Database
from app.storage.tables import CallRow, utc_now

log = logging.getLogger(__name__)

_PAUSE = 0.5  # seconds in which calls gather before they are written
_BATCH = 200
_AWAY = (OperationalError, InterfaceError)  # the database is away, or busy: another try may do
_CLOSING = 10.0  # seconds that the last write may take


@dataclass(frozen=True)
class CallRecord:
    """A call to a provider that is over.

    :param latency: seconds from request to full answer, or until it failed
    :param outcome: `ok`, `stopped`, `client_left`, or the error's slug
    :param estimated: whether the tokens were guessed
    :param load_time: seconds in which the model was loaded, where the provider tells
    """

    provider: str
    model: str
    endpoint: str
    latency: float
    outcome: str = "ok"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    estimated: bool = False
    time_to_first_token: float | None = None
    tokens_per_second: float | None = None
    load_time: float | None = None
    fallback: bool = False
    streamed: bool = False
    request_id: str = ""
    at: datetime = field(default_factory=utc_now)


class UsageLog:
    """Keeps calls; those who make them never wait for it, nor hear of its failures.

    A thread writes what has gathered. While the database is away, calls wait for it; of more than *limit*,
    the newest are lost and counted: those before them are as good, and none is moved.
    """

    def __init__(self, database: Database, limit: int = 10_000) -> None:
        self._database = database
        self._limit = limit
        self._waiting: deque[CallRecord] = deque()
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        self._closing = False
        self._failing = False
        self._pruned_on: date | None = None
        self.lost = 0

    def record(self, call: CallRecord) -> None:
        """Keep *call*, in a while."""
        with self._changed:
            if self._closing or len(self._waiting) >= self._limit:
                self.lost += 1
                return
            self._waiting.append(call)
            if self._writer is None:
                self._writer = threading.Thread(target=self._run, name="usage", daemon=True)
                self._writer.start()
                atexit.register(self.close)  # where nobody else closes it, as under gunicorn
            if len(self._waiting) in {1, _BATCH}:
                self._changed.notify()

    def report(self, **wanted: Any) -> dict[str, Any]:
        """Return the calls summed up; see :func:`app.services.usage.report.report`."""
        return usage_report.report(self._database, **wanted)

    def close(self) -> None:
        """Write what is still to be written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            writer = self._writer
        if writer is not None:
            writer.join(_CLOSING)
            atexit.unregister(self.close)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()
        if self.lost:
            log.warning("%d calls could not be counted", self.lost)

    def prune(self, keep_days: int) -> None:
        """Forget the calls that are older than *keep_days* days; looks once a day."""
        today = utc_now().date()
        if self._pruned_on == today:
            return
        with self._database.session() as session:
            session.execute(delete(CallRow).where(CallRow.at < utc_now() - timedelta(days=keep_days)))
        self._pruned_on = today

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                self._changed.wait_for(self._is_due, _PAUSE)
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                closing = self._closing
            if not batch:
                return
            if left := self._write(batch):
                with self._changed:
                    self._waiting.extendleft(reversed(left))
                if closing:
                    return

    def _is_due(self) -> bool:
        return self._closing or (len(self._waiting) >= _BATCH and not self._failing)

    def _write(self, batch: list[CallRecord]) -> list[CallRecord]:
        """Write *batch*, call by call where the whole fails; return those that are to be tried again."""
        try:
            with self._database.session() as session:
                session.execute(insert(CallRow), [_row(call) for call in batch])
        except Exception as exc:  # noqa: BLE001 - the thread's outermost edge: it must not end
            self._give_up(exc)
            if isinstance(exc, _AWAY):
                return batch
            if len(batch) == 1:
                self.lost += 1
                return []
        else:
            self._failing = False
            return []
        for number, call in enumerate(batch):
            if self._write([call]):
                return batch[number:]
        return []

    def _give_up(self, exc: Exception) -> None:
        if not self._failing:  # once, however long it lasts
            log.warning("calls cannot be counted for now: %s", type(exc).__name__, exc_info=exc)
        self._failing = True


def _row(call: CallRecord) -> dict[str, Any]:
    row = asdict(call)
    limits = {"provider": 80, "endpoint": 80, "outcome": 64, "request_id": 64}
    return {**row, **{name: row[name][:limit] for name, limit in limits.items()}}

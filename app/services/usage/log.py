"""Record the calls to providers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Any

from sqlalchemy import delete, insert

from app.errors import StorageFailed
from app.schemas.usage import UsageReport
from app.services.usage import report as usage_report
from app.services.usage.last_uses import LastUses, ModelUsed
from app.storage.database import Database
from app.storage.tables import CallRow
from app.threads import WriteBehind


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class CallRecord:
    """A finished call to a provider.

    :param latency: seconds from the request to the end of the answer, or to the failure
    :param outcome: `ok`, `stopped`, `client_left`, or the `error_type` of the failure
    :param estimated: whether the tokens are an estimate
    :param load_time: seconds that loading the model took; None if the provider does not tell
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
    at: datetime = field(default_factory=_now)


class UsageLog:
    """Records calls, and for each successful call the last use of its model, without making the caller wait.

    :param limit: how many calls may wait while the database does not answer
    """

    def __init__(self, database: Database, limit: int = 10_000) -> None:
        self._database = database
        self._uses = LastUses()
        self._pruned_on: date | None = None
        self._queue = WriteBehind[CallRecord | ModelUsed](
            "usage",
            self._write,
            passing=(StorageFailed,),
            failing="calls cannot be counted for now",
            losing="%d calls could not be counted, and the last uses of their models could not be kept",
            limit=limit,
        )

    @property
    def lost(self) -> int:
        """The number of calls that could not be recorded."""
        return self._queue.lost

    @property
    def failure(self) -> str:
        """A sentence that says why calls wait to be recorded; empty if none has to."""
        return self._queue.failure

    def record(self, call: CallRecord) -> None:
        """Record *call*; it is written in the background."""
        self._queue.put(call)

    def touch(self, provider: str, model: str) -> None:
        """Record that *model* is used now, by something that is not a call."""
        self._queue.put(ModelUsed(provider, model, _now()))

    def report(self, **wanted: Any) -> UsageReport:
        """Return sums of the calls; see :func:`app.services.usage.report.report`."""
        return usage_report.report(self._database, **wanted)

    def close(self) -> None:
        """Write the calls that still wait."""
        self._queue.close()

    def prune(self, keep_days: int) -> None:
        """Delete the calls that are older than *keep_days* days; does so only once a day."""
        today = _now().date()
        if self._pruned_on == today:
            return
        with self._database.session() as session:
            session.execute(delete(CallRow).where(CallRow.at < _now() - timedelta(days=keep_days)))
        self._pruned_on = today

    def _write(self, batch: list[CallRecord | ModelUsed]) -> None:
        """Write *batch* in one transaction."""
        calls = [item for item in batch if isinstance(item, CallRecord)]
        due = self._uses.due(use for item in batch if (use := _use(item)))
        with self._database.session() as session:
            if calls:
                session.execute(insert(CallRow), [_row(call) for call in calls])
            self._uses.write(session, due)
        self._uses.written(due)


def _use(item: CallRecord | ModelUsed) -> ModelUsed | None:
    if isinstance(item, ModelUsed):
        return item
    return ModelUsed(item.provider, item.model, item.at) if item.outcome == "ok" else None


def _row(call: CallRecord) -> dict[str, Any]:
    row = vars(call)  # asdict() would copy each value deeply
    limits = {"provider": 80, "endpoint": 80, "outcome": 64, "request_id": 64}
    return {**row, **{name: row[name][:limit] for name, limit in limits.items()}}

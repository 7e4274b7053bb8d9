"""Sum up the calls by day, provider and model."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta, timezone
from statistics import fmean
from typing import cast

from sqlalchemy import DateTime, select, type_coerce

from app.schemas.usage import GROUPS, UsageGroup, UsageReport, UsageSum
from app.storage.database import Database
from app.storage.tables import CallRow

SAMPLES = 100_000
"""The number of calls, of each day, provider and model, that count for times and speeds: the newest ones.

All calls count for the other sums.
"""

_STOPPED = {"stopped", "client_left"}
_COLUMNS = (
    type_coerce(CallRow.at, DateTime),  # adding the zone to each would take longer than everything else
    CallRow.provider,
    CallRow.model,
    CallRow.outcome,
    CallRow.prompt_tokens,
    CallRow.completion_tokens,
    CallRow.estimated,
    CallRow.latency,
    CallRow.tokens_per_second,
    CallRow.time_to_first_token,
)


def report(
    database: Database,
    *,
    since: date,
    until: date,
    by: Iterable[str] = GROUPS,
    provider: str | None = None,
    model: str | None = None,
) -> UsageReport:
    """Return the sums of the calls from the day *since* to the day *until*, including both, in UTC.

    :param by: the values to group by: some of :data:`GROUPS`
    """
    names = [name for name in GROUPS if name in set(by)]
    chosen = [CallRow.at >= _begin(since), CallRow.at < _begin(until) + timedelta(days=1)]
    chosen += [CallRow.provider == provider] if provider is not None else []
    chosen += [CallRow.model == model] if model is not None else []
    query = select(*_COLUMNS).where(*chosen).order_by(CallRow.at.desc(), CallRow.id.desc())
    sums: defaultdict[tuple[str, ...], _Sum] = defaultdict(_Sum)
    with database.session() as session:
        for at, its_provider, its_model, *rest in session.execute(query.execution_options(yield_per=5000)):
            sums[str(at.date()), its_provider, its_model].add(*rest)
    lines = _merged(sums, [GROUPS.index(name) for name in names])
    usage = [_group(names, key, lines[key].shown()) for key in sorted(lines)]
    return {"from": since, "to": until, "usage": usage, "totals": _merged(sums, [])[()].shown()}


def _group(names: list[str], key: tuple[str, ...], total: UsageSum) -> UsageGroup:
    return cast("UsageGroup", {**dict(zip(names, key, strict=True)), **total})


class _Sum:
    """The sums of some calls, and the times and speeds for the percentiles."""

    def __init__(self) -> None:
        self.calls = self.failures = self.stopped = self.estimated = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.latencies, self.speeds, self.first_tokens = array("d"), array("d"), array("d")

    def add(
        self,
        outcome: str,
        prompt: int | None,
        completion: int | None,
        estimated: bool,
        latency: float,
        speed: float | None,
        first_token: float | None,
    ) -> None:
        """Add a call."""
        self.calls += 1
        has_failed = outcome not in _STOPPED and outcome != "ok"
        self.stopped += outcome in _STOPPED
        self.failures += has_failed
        self.prompt_tokens += prompt or 0
        self.completion_tokens += completion or 0
        self.estimated += estimated and not has_failed
        if self.calls > SAMPLES:
            return
        if outcome == "ok":  # the time until a failure says nothing about the model
            self.latencies.append(latency)
        if speed is not None:
            self.speeds.append(speed)
        if first_token is not None:
            self.first_tokens.append(first_token)

    def merge(self, other: _Sum) -> None:
        """Add the calls of *other*."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def shown(self) -> UsageSum:
        """Return the sums for an answer of the API."""
        latencies, speeds = sorted(self.latencies), sorted(self.speeds)
        return {
            "calls": self.calls,
            "failures": self.failures,
            "stopped": self.stopped,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "estimated": self.estimated,
            "latency_p50": percentile(latencies, 50),
            "latency_p95": percentile(latencies, 95),
            "tokens_per_second_mean": fmean(speeds) if speeds else None,
            "tokens_per_second_p50": percentile(speeds, 50),
            "tokens_per_second_p95": percentile(speeds, 95),
            "time_to_first_token_p50": percentile(sorted(self.first_tokens), 50),
        }


def _merged(sums: dict[tuple[str, ...], _Sum], positions: list[int]) -> defaultdict[tuple[str, ...], _Sum]:
    """Merge the *sums* whose keys are equal at *positions*."""
    merged: defaultdict[tuple[str, ...], _Sum] = defaultdict(_Sum)
    for key, found in sums.items():
        merged[tuple(key[position] for position in positions)].merge(found)
    return merged


def percentile(ordered: list[float], percent: float) -> float | None:
    """Return a percentile of values in ascending order, interpolated between the two nearest ones."""
    if not ordered:
        return None
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _begin(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)

"""The calls, summed up by day, provider and model."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta, timezone
from typing import Any

from sqlalchemy import select

from app.db import Database
from app.schemas.usage import GROUPS
from app.tables import CallRow

Json = dict[str, Any]

SAMPLES = 100_000
"""Percentiles are those of a group's newest calls, at most so many; sums are of all."""

_NO_FAILURES = {"ok", "stopped", "client_left"}
_COLUMNS = (
    CallRow.at,
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
_KEYS: dict[str, Callable[[Any], str]] = {
    "day": lambda row: str(row.at.date()),
    "provider": lambda row: str(row.provider),
    "model": lambda row: str(row.model),
}


def report(
    database: Database,
    *,
    since: date,
    until: date,
    by: Iterable[str] = GROUPS,
    provider: str | None = None,
    model: str | None = None,
) -> Json:
    """Return the calls from *since* to *until*, both days in UTC and counted in, summed up.

    :param by: some of :data:`GROUPS`
    """
    names = [name for name in GROUPS if name in set(by)]
    chosen = [CallRow.at >= _begin(since), CallRow.at < _begin(until) + timedelta(days=1)]
    chosen += [CallRow.provider == provider] if provider is not None else []
    chosen += [CallRow.model == model] if model is not None else []
    query = select(*_COLUMNS).where(*chosen).order_by(CallRow.at.desc(), CallRow.id.desc())
    groups: dict[tuple[str, ...], _Sum] = {}
    totals = _Sum()
    with database.session() as session:
        for row in session.execute(query.execution_options(yield_per=5000)):
            key = tuple(_KEYS[name](row) for name in names)
            groups.setdefault(key, _Sum()).add(row)
            totals.add(row)
    usage = [{**dict(zip(names, key, strict=True)), **groups[key].shown()} for key in sorted(groups)]
    return {"from": since, "to": until, "usage": usage, "totals": totals.shown()}


class _Sum:
    """The sum of some calls."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(
            ("calls", "failures", "stopped", "prompt_tokens", "completion_tokens", "estimated"), 0
        )
        self._latencies = array("d")
        self._speeds = array("d")
        self._first_tokens = array("d")
        self._speed_sum = 0.0
        self._speed_count = 0

    def add(self, row: Any) -> None:
        """Count a call."""
        counts = self._counts
        counts["calls"] += 1
        counts["failures"] += row.outcome not in _NO_FAILURES
        counts["stopped"] += row.outcome in _NO_FAILURES and row.outcome != "ok"
        counts["prompt_tokens"] += row.prompt_tokens or 0
        counts["completion_tokens"] += row.completion_tokens or 0
        counts["estimated"] += row.estimated
        if row.outcome == "ok":  # how long a failure took says nothing of the model
            _keep(self._latencies, row.latency)
        _keep(self._speeds, row.tokens_per_second)
        _keep(self._first_tokens, row.time_to_first_token)
        if row.tokens_per_second is not None:
            self._speed_sum += row.tokens_per_second
            self._speed_count += 1

    def shown(self) -> Json:
        """Return the sum as it is answered."""
        mean = self._speed_sum / self._speed_count if self._speed_count else None
        latencies, speeds = sorted(self._latencies), sorted(self._speeds)
        return {
            **self._counts,
            "latency_p50": percentile(latencies, 50),
            "latency_p95": percentile(latencies, 95),
            "tokens_per_second_mean": mean,
            "tokens_per_second_p50": percentile(speeds, 50),
            "tokens_per_second_p95": percentile(speeds, 95),
            "time_to_first_token_p50": percentile(sorted(self._first_tokens), 50),
        }


def percentile(ordered: list[float], percent: float) -> float | None:
    """Return a percentile of values in ascending order, between two of them where it falls there."""
    if not ordered:
        return None
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _keep(samples: array[float], value: float | None) -> None:
    if value is not None and len(samples) < SAMPLES:
        samples.append(value)


def _begin(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)

"""Calls to providers: written beside them, summed up when asked."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from app import threads
from app.config import ROOT
from app.services.usage.log import CallRecord, UsageLog
from app.services.usage.report import percentile, report
from app.storage.database import Database
from app.storage.tables import CallRow, utc_now
from app.threads import WriteBehind
from tests.postgres import database_url

Json = dict[str, Any]

DAY = datetime(2026, 11, 20, tzinfo=timezone.utc)


def call(**values: Any) -> CallRecord:
    return CallRecord(**{"provider": "ollama", "model": "a:1", "endpoint": "chat", "latency": 1.0, **values})


def count(database: Database) -> int:
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(CallRow)) or 0


def keep(database: Database, *calls: CallRecord) -> None:
    usage_log = UsageLog(database)
    for one in calls:
        usage_log.record(one)
    usage_log.close()


def sums(database: Database, **wanted: Any) -> Json:
    wanted = {"since": DAY.date(), "until": DAY.date() + timedelta(days=1), **wanted}
    return report(database, **wanted)


def test_calls_of_many_threads_are_all_written_at_close(database: Database) -> None:
    usage_log = UsageLog(database)
    barrier = threading.Barrier(8)

    def record(_: int) -> None:
        barrier.wait()
        for _ in range(100):
            usage_log.record(call())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    usage_log.close()

    assert count(database) == 800
    assert usage_log.lost == 0


def test_call_is_kept_with_all_that_is_known(database: Database) -> None:
    full = call(
        prompt_tokens=5,
        completion_tokens=7,
        estimated=True,
        outcome="upstream_timeout",
        time_to_first_token=0.25,
        tokens_per_second=12.5,
        load_time=1.5,
        fallback=True,
        streamed=True,
        request_id="r" * 100,
        at=DAY,
    )

    keep(database, full)

    with database.session() as session:
        row = session.scalars(select(CallRow)).one()
        kept = {name: getattr(row, name) for name in vars(full)}
    assert kept == {**vars(full), "request_id": "r" * 64}


def test_writer_writes_without_being_closed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    written = threading.Event()
    write = WriteBehind._write

    def note(self: WriteBehind[Any], batch: list[Any]) -> list[Any]:
        done = write(self, batch)
        written.set()
        return done

    monkeypatch.setattr(WriteBehind, "_write", note)
    usage_log = UsageLog(database)

    usage_log.record(call())

    assert written.wait(20)
    assert count(database) == 1
    usage_log.close()


def test_program_that_ends_without_closing_loses_no_call(tmp_path: Path, database: Database) -> None:
    program = f"""
from pathlib import Path
from app.storage.database import Database
from app.services.usage.log import CallRecord, UsageLog
log = UsageLog(Database({database_url(tmp_path)!r}, Path({str(tmp_path)!r})))
log.record(CallRecord("ollama", "a:1", "chat", 1.0))
"""

    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)

    assert count(database) == 1


def test_calls_beyond_the_limit_are_lost_and_counted(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_PAUSE", 60)
    usage_log = UsageLog(database, limit=3)

    for number in range(5):
        usage_log.record(call(model=str(number)))
    usage_log.close()

    assert usage_log.lost == 2
    assert [line["model"] for line in sums(database, until=utc_now().date())["usage"]] == ["0", "1", "2"]
    assert "2 calls could not be counted" in caplog.text


def test_calls_wait_while_the_database_is_away(
    database: Database, caplog: pytest.LogCaptureFixture, failed_writes: threading.Semaphore
) -> None:
    usage_log = UsageLog(database)
    with database.session() as session:
        session.execute(text("alter table calls rename to elsewhere"))
    usage_log.record(call())
    for _ in range(3):
        assert failed_writes.acquire(timeout=20)
    with database.session() as session:
        session.execute(text("alter table elsewhere rename to calls"))
    usage_log.close()

    assert count(database) == 1
    assert usage_log.lost == 0
    assert caplog.text.count("cannot be counted") == 1


def test_calls_that_no_database_takes_are_lost_and_counted_and_later_ones_kept(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    keep_going = UsageLog(database)

    keep_going.record(call(latency=None))
    keep_going.close()
    keep(database, call())

    assert keep_going.lost == 1
    assert count(database) == 1
    assert "cannot be counted" in caplog.text


def test_failed_calls_are_not_among_those_whose_tokens_were_guessed(database: Database) -> None:
    keep(
        database,
        call(at=DAY, estimated=True, completion_tokens=5),
        call(at=DAY, estimated=True, completion_tokens=4, outcome="stopped"),
        call(at=DAY, estimated=True, completion_tokens=0, outcome="upstream_unavailable"),
    )

    totals = sums(database)["totals"]

    assert (totals["calls"], totals["failures"], totals["estimated"]) == (3, 1, 2)


@pytest.mark.parametrize("bad", [{"completion_tokens": 10**20}, {"latency": None}])
def test_call_that_no_database_takes_loses_only_itself(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, bad: Json
) -> None:
    monkeypatch.setattr(threads, "_PAUSE", 60)
    usage_log = UsageLog(database)

    for one in (call(), call(**bad), call()):
        usage_log.record(one)
    usage_log.close()

    assert usage_log.lost == 1
    assert count(database) == 2
    assert "cannot be counted" in caplog.text


def test_call_after_the_end_is_lost_and_raises_nothing(database: Database) -> None:
    usage_log = UsageLog(database)
    usage_log.close()

    usage_log.record(call())

    assert (usage_log.lost, count(database)) == (1, 0)


def test_report_sums_up_by_day_provider_and_model(database: Database) -> None:
    keep(
        database,
        call(at=DAY, prompt_tokens=10, completion_tokens=20, tokens_per_second=10.0, latency=1.0),
        call(at=DAY, completion_tokens=5, estimated=True, tokens_per_second=20.0, latency=3.0),
        call(at=DAY, outcome="upstream_timeout", latency=300.0),
        call(at=DAY, outcome="client_left", latency=9.0),
        call(at=DAY + timedelta(hours=24), time_to_first_token=0.5),
        call(at=DAY, provider="openai", model="gpt", outcome="stopped"),
        call(at=DAY - timedelta(seconds=1)),
        call(at=DAY + timedelta(days=2)),
    )

    found = sums(database)

    keys = [(line["day"], line["provider"], line["model"]) for line in found["usage"]]
    assert keys == [
        ("2026-11-20", "ollama", "a:1"),
        ("2026-11-20", "openai", "gpt"),
        ("2026-11-21", "ollama", "a:1"),
    ]
    first = found["usage"][0]
    assert {name: first[name] for name in ("calls", "failures", "stopped", "estimated")} == {
        "calls": 4,
        "failures": 1,
        "stopped": 1,
        "estimated": 1,
    }
    assert (first["prompt_tokens"], first["completion_tokens"]) == (10, 25)
    assert (first["latency_p50"], first["latency_p95"]) == (2.0, pytest.approx(2.9))
    assert (first["tokens_per_second_mean"], first["tokens_per_second_p50"]) == (15.0, 15.0)
    assert found["usage"][2]["time_to_first_token_p50"] == 0.5
    assert found["usage"][2]["tokens_per_second_mean"] is None
    assert found["totals"]["calls"] == 6


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"by": ["model"]}, [{"model": "a:1"}, {"model": "b:1"}]),
        ({"by": ["model", "day"]}, [{"day": "2026-11-20", "model": m} for m in ("a:1", "b:1")]),
        ({"by": ["provider"], "model": "b:1"}, [{"provider": "openai"}]),
        ({"by": ["provider"], "provider": "ollama"}, [{"provider": "ollama"}]),
        ({"by": ["provider"], "provider": "nobody"}, []),
    ],
)
def test_report_groups_and_chooses_as_asked(database: Database, wanted: Json, keys: list[Json]) -> None:
    keep(database, call(at=DAY), call(at=DAY, provider="openai", model="b:1"))

    lines = sums(database, **wanted)["usage"]

    assert [
        {name: line[name] for name in ("day", "provider", "model") if name in line} for line in lines
    ] == keys


def test_percentiles_are_of_the_newest_calls_and_sums_of_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.usage.report.SAMPLES", 2)
    keep(database, *(call(at=DAY + timedelta(seconds=n), latency=float(n)) for n in range(5)))

    totals = sums(database)["totals"]

    assert (totals["calls"], totals["latency_p50"]) == (5, 3.5)


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted), st.sampled_from([0.0, 50.0, 95.0, 100.0]))
def test_percentile_is_between_the_least_and_the_greatest(values: list[float], percent: float) -> None:
    found = percentile(values, percent)

    assert found is not None
    assert values[0] - 1e-6 <= found <= values[-1] + 1e-6
    assert percentile(values, 100) == values[-1]


def test_old_calls_are_forgotten_once_a_day(database: Database) -> None:
    old, recent = utc_now() - timedelta(days=11), utc_now() - timedelta(days=9)
    keep(database, call(at=old), call(at=recent))
    usage_log = UsageLog(database)

    usage_log.prune(10)
    after = count(database)
    keep(database, call(at=old))
    usage_log.prune(10)

    assert (after, count(database)) == (1, 2)


def test_chores_forget_calls_as_the_settings_say(app: Flask, client: FlaskClient) -> None:
    services = app.extensions["services"]
    keep(services.database, call(at=utc_now() - timedelta(days=11)))

    put = client.put("/api/settings", json={"usage": {"keep_days": 10}})
    services.chores.do()

    assert put.json["usage"] == {"keep_days": 10}
    assert count(services.database) == 0


def test_usage_is_answered_for_days_in_utc(app: Flask, client: FlaskClient) -> None:
    keep(app.extensions["services"].database, call(at=DAY, completion_tokens=3), call())

    answer = client.get("/api/usage?from=2026-11-20&to=2026-11-20&by=day,model").json
    recent = client.get("/api/usage").json

    assert (answer["from"], answer["to"]) == ("2026-11-20", "2026-11-20")
    assert [(line["day"], line["model"]) for line in answer["usage"]] == [("2026-11-20", "a:1")]
    assert "provider" not in answer["usage"][0]
    assert answer["totals"]["completion_tokens"] == 3
    today = utc_now().date()
    assert date.fromisoformat(recent["to"]) - date.fromisoformat(recent["from"]) == timedelta(days=29)
    assert today - date.fromisoformat(recent["to"]) <= timedelta(days=1)
    assert recent["usage"][-1]["provider"] == "ollama"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("from=2026-02-30", "from"),
        ("to=9999-12-31", "to"),
        ("from=0001-01-01", "from"),
        ("from=2026-11-20&to=2026-11-19", "from"),
        ("by=week", "by"),
        ("model=%00", "model"),
        ("provider=%00", "provider"),
        ("by=", "by"),
        ("by=day,,model", "by"),
        ("since=2026-11-20", "since"),
    ],
)
def test_bad_usage_query_is_400_and_names_the_field(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"/api/usage?{query}")

    assert response.status_code == 400
    assert field in response.json["details"].get("query", response.json["details"])


@pytest.mark.parametrize("days", [0, 36_501, "10", 1.5, None])
def test_days_to_keep_must_be_a_sensible_number(client: FlaskClient, days: Any) -> None:
    response = client.put("/api/settings", json={"usage": {"keep_days": days}})

    assert response.status_code == 400
    assert "keep_days" in response.text

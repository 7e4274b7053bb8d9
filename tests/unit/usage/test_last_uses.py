"""The last use of each model: written beside the calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.services.models.uses import ModelUses
from app.services.usage import last_uses
from app.services.usage.log import CallRecord, UsageLog
from app.storage.database import Database
from tests.postgres import database_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(database_url(tmp_path), tmp_path)
    yield database
    database.close()


def test_use_of_a_model_is_written_once_a_minute_whatever_its_spelling(database: Database) -> None:
    database.migrate()
    usage_log = UsageLog(database)

    for model in ("Llama3.2", "llama3.2:latest", "registry.ollama.ai/library/llama3.2", "not a name"):
        usage_log.touch("ollama", model)
    usage_log.close()

    assert list(ModelUses(database).all("ollama")) == ["registry.ollama.ai/library/llama3.2:latest"]
    assert ModelUses(database).all("other") == {}


def test_use_of_a_model_is_written_over_the_one_before(database: Database) -> None:
    database.migrate()
    for _ in range(2):  # another process knows nothing of the first one's
        usage_log = UsageLog(database)
        usage_log.touch("ollama", "a:1")
        usage_log.close()

    assert len(ModelUses(database).all("ollama")) == 1


def test_of_ever_new_names_only_the_last_ones_are_remembered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.migrate()
    monkeypatch.setattr(last_uses, "_REMEMBERED", 3)
    usage_log = UsageLog(database)

    for number in range(10):
        usage_log.touch("ollama", f"a:{number}")
    usage_log.close()

    assert [key.rpartition(":")[2] for _, key in usage_log._uses._written] == ["7", "8", "9"]
    assert len(ModelUses(database).all("ollama")) == 10


def test_use_that_cannot_be_written_is_only_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    usage_log = UsageLog(database)  # has no tables yet

    usage_log.touch("ollama", "a:1")
    usage_log.close()

    assert "could not be kept" in caplog.text


def _call(model: str, **values: Any) -> CallRecord:
    return CallRecord(provider="ollama", model=model, endpoint="chat", latency=1.0, **values)


def test_only_calls_that_succeeded_use_their_model(database: Database) -> None:
    database.migrate()
    usage_log = UsageLog(database)

    used = _call("used:1")
    for call in (used, _call("failed:1", outcome="upstream_timeout"), _call("left:1", outcome="client_left")):
        usage_log.record(call)
    usage_log.close()

    assert ModelUses(database).all("ollama") == {"registry.ollama.ai/library/used:1": used.at}


def test_use_waits_with_its_call_while_the_database_is_away(
    database: Database, failed_writes: threading.Semaphore
) -> None:
    database.migrate()
    with database.session() as session:
        session.execute(text("alter table model_uses rename to elsewhere"))
    usage_log = UsageLog(database)
    usage_log.record(_call("a:1"))
    for _ in range(2):
        assert failed_writes.acquire(timeout=20)
    before = usage_log.report(since=date(2026, 1, 1), until=date(9998, 1, 1))["totals"]["calls"]
    with database.session() as session:
        session.execute(text("alter table elsewhere rename to model_uses"))
    usage_log.close()

    assert before == 0  # the call and the use of its model are one transaction
    assert usage_log.report(since=date(2026, 1, 1), until=date(9998, 1, 1))["totals"]["calls"] == 1
    assert len(ModelUses(database).all("ollama")) == 1


def test_processes_that_use_the_same_models_at_once_lose_no_call(database: Database, tmp_path: Path) -> None:
    database.migrate()
    databases = [Database(database_url(tmp_path), tmp_path) for _ in range(4)]
    together = threading.Barrier(len(databases))

    def record(number: int) -> int:
        usage_log = UsageLog(databases[number])
        for model in range(20):
            usage_log.record(_call(f"a:{(model + number * 7) % 20}"))
        together.wait()
        usage_log.close()
        databases[number].close()
        return usage_log.lost

    with ThreadPoolExecutor(len(databases)) as pool:
        lost = list(pool.map(record, range(len(databases))))

    assert lost == [0, 0, 0, 0]
    assert len(ModelUses(database).all("ollama")) == 20

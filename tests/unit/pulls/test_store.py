"""The pulls as they are kept: also when several processes change them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select, update

from app.errors import PullNotFound
from app.services.pulls.progress import Progress
from app.services.pulls.store import PullStore
from app.storage.database import Database, Pull, PullEvent, utc_now
from tests.postgres import database_url

PROCESSES = 4


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[list[Database]]:
    """The same database, as several processes have it open."""
    url = database_url(tmp_path)
    databases = [Database(url, tmp_path) for _ in range(PROCESSES)]
    databases[0].migrate()
    yield databases
    for database in databases:
        database.close()


@pytest.fixture
def store(databases: list[Database]) -> PullStore:
    return PullStore(databases[0])


def _at_once(databases: list[Database], do: Callable[[PullStore, int], Any]) -> list[Any]:
    together = threading.Barrier(len(databases))

    def act(number: int) -> Any:
        store = PullStore(databases[number])
        together.wait()
        return do(store, number)

    with ThreadPoolExecutor(len(databases)) as pool:
        return list(pool.map(act, range(len(databases))))


def test_workers_that_claim_at_once_keep_to_the_limit(databases: list[Database], store: PullStore) -> None:
    for turn in range(10):
        ids = [store.join(f"{turn}-{n}", f"{turn}-{n}", insecure=False).id for n in range(PROCESSES)]

        claimed = _at_once(databases, lambda store, n: store.claim(ids[n], f"worker {n}", 1))  # noqa: B023

        winners = [pull for pull in claimed if pull is not None]
        assert len(winners) == store.running() == 1
        store.settle(winners[0].id, winners[0].owner, "failed", None, {})


def test_workers_that_claim_the_same_pull_at_once_do_not_share_it(
    databases: list[Database], store: PullStore
) -> None:
    for turn in range(10):
        id = store.join(str(turn), str(turn), insecure=False).id

        claimed = _at_once(databases, lambda store, n: store.claim(id, f"worker {n}", 99))  # noqa: B023

        assert sum(pull is not None for pull in claimed) == 1


def test_changes_at_once_are_all_told_without_gaps(databases: list[Database], store: PullStore) -> None:
    id = store.join("a", "a", insecure=False).id

    def change(store: PullStore, number: int) -> None:
        for _ in range(10):
            store.want(id, "paused" if number % 2 else "running")

    _at_once(databases, change)

    told = [event.seq for event in store.events(id, 0)]
    assert told == list(range(1, 10 * PROCESSES + 2))


def test_report_does_not_undo_what_is_wanted_meanwhile(databases: list[Database], store: PullStore) -> None:
    for turn in range(5):
        id = store.join(str(turn), str(turn), insecure=False).id
        store.claim(id, "me", 99)

        def act(store: PullStore, number: int) -> None:
            if number == 0:
                store.want(id, "cancelled")  # noqa: B023
            for _ in range(5):
                store.report(id, "me", Progress({}, None, None, []), 0, number)  # noqa: B023

        _at_once(databases, act)

        assert store.get(id).wanted == "cancelled"
        store.settle(id, "me", "cancelled", None)


def _count(database: Database, table: type[Pull] | type[PullEvent]) -> int:
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_old_pulls_that_are_over_are_forgotten_with_their_events(
    databases: list[Database], store: PullStore
) -> None:
    old, new, waiting = [store.join(name, name, insecure=False).id for name in ("old", "new", "waiting")]
    for id in (old, new):
        store.want(id, "cancelled")
    with databases[0].session() as session:
        session.execute(update(Pull).where(Pull.id != new).values(updated_at=utc_now() - timedelta(days=31)))

    store.prune(30)

    assert {pull.id for pull in store.all()} == {new, waiting}
    assert _count(databases[0], PullEvent) == 3
    with pytest.raises(PullNotFound):
        store.get(old)


@pytest.mark.parametrize("days", [0, -1, "30", 1.5, None, 100_000])
def test_days_to_keep_pulls_that_are_none_are_400(client: FlaskClient, days: object) -> None:
    assert client.put("/api/settings", json={"pulls": {"keep_days": days}}).status_code == 400


def test_chores_forget_old_pulls_as_the_settings_say(client: FlaskClient) -> None:
    services = client.application.extensions["services"]
    client.patch("/api/providers/ollama", json={"base_url": "http://127.0.0.1:1/v1"})  # it is away
    client.put("/api/settings", json={"pulls": {"keep_days": 2}})
    id = services.pull_store.join("a", "a", insecure=False).id
    services.pull_store.want(id, "cancelled")
    services.chores.do()
    kept = services.pulls.all()
    with services.database.session() as session:
        session.execute(update(Pull).values(updated_at=utc_now() - timedelta(days=3)))

    services.chores.do()

    assert len(kept) == 1
    assert services.pulls.all() == []

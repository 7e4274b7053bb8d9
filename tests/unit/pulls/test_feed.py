"""The events of pulls, read once for all of their watchers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from app.errors import PullNotFound, StorageFailed
from app.services.pulls import feed
from app.services.pulls.feed import PullFeeds
from app.services.pulls.store import PullStore
from app.storage.database import Database

LIMIT = 10  # seconds


@pytest.fixture
def store(database: Database) -> PullStore:
    return PullStore(database)


@pytest.fixture
def feeds(store: PullStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[PullFeeds]:
    monkeypatch.setattr(feed, "POLL", 0.01)
    feeds = PullFeeds(store)
    yield feeds
    feeds.close()


def test_watchers_of_one_pull_share_its_feed_and_hear_of_no_other_pull(
    feeds: PullFeeds, store: PullStore
) -> None:
    first, second = (store.join(name, name, insecure=False).id for name in ("a", "b"))

    with feeds.watch(first) as one, feeds.watch(second) as two, feeds.watch(second) as same:
        store.want(first, "paused")
        store.want(second, "cancelled")
        (paused,), over = one.after(1, LIMIT)
        (cancelled,), second_over = two.after(1, LIMIT)

    assert same is two
    assert (paused.data["status"], over) == ("paused", None)
    assert cancelled.name == "cancelled"
    assert second_over is not None
    assert second_over.status == "cancelled"


def test_deleted_pull_ends_its_own_feed_only(feeds: PullFeeds, store: PullStore) -> None:
    deleted, other = (store.join(name, name, insecure=False).id for name in ("a", "b"))

    with feeds.watch(deleted) as gone, feeds.watch(other) as left:
        store.delete(deleted)
        with pytest.raises(PullNotFound):
            gone.after(1, LIMIT)
        store.want(other, "paused")
        (event,), over = left.after(1, LIMIT)

    assert (event.data["status"], over) == ("paused", None)


def _rename(database: Database, old: str, new: str) -> None:
    with database.session() as session:
        session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


@contextmanager
def _failing(database: Database) -> Iterator[None]:
    """Let the database fail to read events in this block."""
    _rename(database, "pull_events", "away")
    try:
        yield
    finally:
        _rename(database, "away", "pull_events")


def _wait_until(condition: Callable[[], object]) -> None:
    until, deadline = threading.Event(), time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        until.wait(0.005)


def test_watchers_survive_a_failure_of_the_database(
    feeds: PullFeeds, store: PullStore, database: Database
) -> None:
    id = store.join("a", "a", insecure=False).id

    with feeds.watch(id) as watched:
        with _failing(database):
            _wait_until(lambda: feeds.failure)
            said, nothing = feeds.failure, watched.after(1, 0.01)
        store.want(id, "cancelled")
        (event,), over = watched.after(1, LIMIT)
        _wait_until(lambda: not feeds.failure)

    assert said.startswith("Background work fails (feeds of pulls): The database")
    assert nothing == ([], None)
    assert event.name == "cancelled"
    assert over is not None


def test_watchers_get_an_error_when_the_database_fails_for_long(
    feeds: PullFeeds, store: PullStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PATIENCE", 0.0)
    id = store.join("a", "a", insecure=False).id

    with feeds.watch(id) as watched:
        with _failing(database):
            _wait_until(lambda: feeds.failure)
            with pytest.raises(StorageFailed):
                watched.after(1, LIMIT)
            kept, _ = watched.after(0, LIMIT)
        store.want(id, "cancelled")
        (event,), _ = watched.after(1, LIMIT)

    assert [event.seq for event in kept] == [1]
    assert event.name == "cancelled"


def test_watching_no_pull_raises_and_leaves_no_feed(feeds: PullFeeds) -> None:
    with pytest.raises(PullNotFound), feeds.watch("nothing"):
        pytest.fail("there is no such pull")

    assert feeds._feeds == {}

"""The events of pulls, read once for all of their watchers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.errors import PullNotFound
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
        (paused,), is_over = one.after(1, LIMIT)
        (cancelled,), is_second_over = two.after(1, LIMIT)

    assert same is two
    assert (paused.data["status"], is_over) == ("paused", False)
    assert (cancelled.name, is_second_over) == ("cancelled", True)


def test_deleted_pull_ends_its_own_feed_only(
    feeds: PullFeeds, store: PullStore, caplog: pytest.LogCaptureFixture
) -> None:
    deleted, other = (store.join(name, name, insecure=False).id for name in ("a", "b"))

    with feeds.watch(deleted) as gone, feeds.watch(other) as left:
        store.delete(deleted)
        end = gone.after(1, LIMIT)
        store.want(other, "paused")
        (event,), is_over = left.after(1, LIMIT)

    assert end == ([], True)
    assert f"the pull {deleted} cannot be watched: PullNotFound" in caplog.text
    assert (event.data["status"], is_over) == ("paused", False)


def test_watching_no_pull_raises_and_leaves_no_feed(feeds: PullFeeds) -> None:
    with pytest.raises(PullNotFound), feeds.watch("nothing"):
        pytest.fail("there is no such pull")

    assert feeds._feeds == {}

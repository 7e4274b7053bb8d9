"""Feed the events of pulls to any number of watchers, with one reader of the database in each process."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Generator
from contextlib import contextmanager

from app.errors import PullNotFound, ServiceError, StorageFailed
from app.services.pulls.store import PullStore
from app.storage.tables import Pull, PullEvent
from app.threads import Recurring

POLL = 0.25  # seconds between two looks at the pulls that are watched
PATIENCE = 30.0
"""Seconds for which the database may fail before watchers get an error."""


class _Feed:
    """The events of one pull that have been read so far.

    It ends in one of two ways: the pull is over, and then :attr:`pull` is its row; or watchers get an error.
    """

    def __init__(self, store: PullStore, id: str) -> None:
        self.watchers = 0
        self.is_read = False
        self.pull: Pull | None = None
        self._error: ServiceError | None = None
        self._since: float | None = None  # when the first read began that has not succeeded
        self._store = store
        self._id = id
        self._events: list[PullEvent] = []
        self._reading = threading.Lock()  # two readers at once would append the same events
        self._changed = threading.Condition()

    def after(self, seq: int, timeout: float) -> tuple[list[PullEvent], Pull | None]:
        """Wait for events after the one numbered *seq*; return them, and the pull if they are the last ones.

        :param timeout: the longest wait, in seconds
        :raises PullNotFound: when the pull was deleted
        :raises ServiceError: when the database has failed for :data:`PATIENCE` seconds
        """
        with self._changed:
            self._changed.wait_for(lambda: self.has_ended or self.newest > seq, timeout)
            events = self._events[bisect_right(self._events, seq, key=_number) :]
            if not events and self.pull is None:
                self.check()
            return events, self.pull

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be read any more."""
        return self.pull is not None or isinstance(self._error, PullNotFound)

    @property
    def newest(self) -> int:
        """The number of the newest event that has been read."""
        return self._events[-1].seq if self._events else 0

    def expect_read(self) -> None:
        """Begin to measure the time until the next successful read."""
        with self._changed:
            if self._since is None:
                self._since = time.monotonic()

    def read(self) -> None:
        """Read the new events.

        :raises Exception: of the store; the next read may succeed
        """
        with self._reading:
            try:
                # Asked before the events are read: when the pull is finished, its last event is among them.
                is_finished = self._store.is_finished(self._id)
                found = self._store.events(self._id, self.newest)
                is_finished = is_finished or any(event.name != "progress" for event in found)
                pull = self._store.get(self._id) if is_finished else None
            except PullNotFound as exc:
                self._note([], None, exc)
            except ServiceError as exc:
                self._error = exc
                raise
            else:
                self._note(found, pull, None)

    def _note(self, found: list[PullEvent], pull: Pull | None, error: ServiceError | None) -> None:
        with self._changed:
            self._events += found
            self.pull, self._error, self._since, self.is_read = pull, error, None, True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error that ends the feed, if there is one."""
        if isinstance(self._error, PullNotFound):
            raise self._error
        if self._since is not None and time.monotonic() - self._since > PATIENCE:
            raise self._error or StorageFailed("The database does not answer.", retry_after=5)


def _number(event: PullEvent) -> int:
    return event.seq


class PullFeeds:
    """The feeds of this process; a feed exists as long as it has a watcher."""

    def __init__(self, store: PullStore) -> None:
        self._store = store
        self._feeds: dict[str, _Feed] = {}
        self._lock = threading.Lock()
        self._reads = Recurring("feeds of pulls", POLL, self._read)

    @property
    def failure(self) -> str:
        """A sentence that says why pulls cannot be watched; empty if they can."""
        return self._reads.failure

    @contextmanager
    def watch(self, id: str) -> Generator[_Feed, None, None]:
        """Yield the feed of a pull.

        :raises PullNotFound: when no pull has that id
        """
        with self._lock:
            feed = self._feeds.get(id)
            if feed is None or feed.has_ended:
                feed = self._feeds[id] = _Feed(self._store, id)
            feed.watchers += 1
        try:
            if not feed.is_read:
                feed.read()
            feed.check()
            with self._reads.busy():
                yield feed
        finally:
            with self._lock:
                feed.watchers -= 1
                if feed.watchers == 0 and self._feeds.get(id) is feed:
                    del self._feeds[id]

    def close(self) -> None:
        """Stop reading."""
        self._reads.close()

    def _read(self) -> None:
        with self._lock:
            feeds = [feed for feed in self._feeds.values() if not feed.has_ended]
        for feed in feeds:
            feed.expect_read()
        failures = [exc for feed in feeds if (exc := _failure(feed))]
        if failures:
            raise failures[0]


def _failure(feed: _Feed) -> Exception | None:
    """Read the new events of *feed*; return an exception, because it must not stop the other feeds."""
    try:
        feed.read()
    except Exception as exc:  # noqa: BLE001 - the next read may succeed
        return exc
    return None

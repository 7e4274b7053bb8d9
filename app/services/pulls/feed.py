"""Feed the events of pulls to any number of watchers, with one reader of the database in each process."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Generator
from contextlib import contextmanager

from app.services.pulls.store import PullStore
from app.storage.tables import PullEvent
from app.threads import Recurring

log = logging.getLogger(__name__)

POLL = 0.25  # seconds between two looks at the pulls that are watched


class _Feed:
    """The events of one pull that have been read so far."""

    def __init__(self, store: PullStore, id: str) -> None:
        self.watchers = 0
        self.is_over = False
        self._store = store
        self._id = id
        self._events: list[PullEvent] = []
        self._reading = threading.Lock()  # two readers at once would append the same events
        self._changed = threading.Condition()

    def after(self, seq: int, timeout: float) -> tuple[list[PullEvent], bool]:
        """Wait for events after the one numbered *seq*; return them, and whether they are the last ones.

        :param timeout: the longest wait, in seconds
        """
        with self._changed:
            self._changed.wait_for(lambda: self.is_over or self._newest > seq, timeout)
            return self._events[bisect_right(self._events, seq, key=_number) :], self.is_over

    def read(self) -> None:
        """Read the new events; an error of the store ends the feed, and is raised."""
        try:
            with self._reading:
                # Asked before the events are read: when the pull is finished, its last event is among them.
                is_finished = self._store.is_finished(self._id)
                found = self._store.events(self._id, self._newest)
                with self._changed:
                    self._events += found
                    self.is_over = is_finished
                    self._changed.notify_all()
        except BaseException:
            self._end()
            raise

    def read_on(self) -> None:
        """Read the new events; an error of the store ends the feed, and is logged."""
        try:
            self.read()
        except Exception as exc:  # noqa: BLE001 - the pull was deleted, or the database does not answer
            log.warning("the pull %s cannot be watched: %s", self._id, type(exc).__name__)

    @property
    def _newest(self) -> int:
        return self._events[-1].seq if self._events else 0

    def _end(self) -> None:
        with self._changed:
            self.is_over = True
            self._changed.notify_all()


def _number(event: PullEvent) -> int:
    return event.seq


class PullFeeds:
    """The feeds of this process; a feed exists as long as it has a watcher."""

    def __init__(self, store: PullStore) -> None:
        self._store = store
        self._feeds: dict[str, _Feed] = {}
        self._lock = threading.Lock()
        self._reads = Recurring("pull feeds", POLL, self._read)

    @contextmanager
    def watch(self, id: str) -> Generator[_Feed, None, None]:
        """Yield the feed of a pull.

        :raises PullNotFound: when no pull has that id
        """
        with self._lock:
            feed = self._feeds.get(id)
            if feed is None or feed.is_over:
                feed = self._feeds[id] = _Feed(self._store, id)
            feed.watchers += 1
            is_first = feed.watchers == 1
        try:
            if is_first:
                feed.read()
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
            feeds = [feed for feed in self._feeds.values() if not feed.is_over]
        for feed in feeds:
            feed.read_on()

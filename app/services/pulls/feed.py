"""The events of pulls for any number of watchers, read from the database once for all of a process."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.errors import ServiceError
from app.services.pulls.store import PullStore
from app.storage.database import PullEvent

log = logging.getLogger(__name__)

POLL = 0.25  # seconds between two looks at a pull


class _Feed:
    """The events of one pull, kept up to date by a thread for as long as somebody watches."""

    def __init__(self, store: PullStore, id: str) -> None:
        self.watchers = 0
        self.is_over = False
        self._store = store
        self._id = id
        self._events: list[PullEvent] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()

    def start(self) -> None:
        """Read what there is, and go on reading."""
        self._read()
        if not self.is_over:
            threading.Thread(target=self._follow, name=f"feed {self._id}", daemon=True).start()

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()

    def after(self, seq: int, timeout: float) -> tuple[list[PullEvent], bool]:
        """Return the events after the one numbered *seq*, and whether no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_over or self._newest > seq, timeout)
            return self._events[bisect_right(self._events, seq, key=_number) :], self.is_over

    @property
    def _newest(self) -> int:
        return self._events[-1].seq if self._events else 0

    def _follow(self) -> None:
        try:
            while not self.is_over and not self._stop.wait(POLL):
                self._read()
        except (ServiceError, SQLAlchemyError) as exc:  # the pull was deleted, or the database is away
            log.warning("the pull %s cannot be watched: %s", self._id, type(exc).__name__)
        finally:
            self.end()

    def _read(self) -> None:
        is_finished = self._store.is_finished(self._id)  # asked first: its last event is then there
        found = self._store.events(self._id, self._newest)
        with self._changed:
            self._events += found
            self.is_over = is_finished
            self._changed.notify_all()

    def end(self) -> None:
        """Tell the watchers that no more will come."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()


def _number(event: PullEvent) -> int:
    return event.seq


def _start(feed: _Feed) -> None:
    try:
        feed.start()
    except BaseException:
        feed.end()  # for those who came meanwhile
        raise


class PullFeeds:
    """The feeds of a process; a feed lives as long as it is watched."""

    def __init__(self) -> None:
        self._feeds: dict[str, _Feed] = {}
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, store: PullStore, id: str) -> Generator[_Feed, None, None]:
        """Yield the feed of a pull.

        :raises PullNotFound: when there is none of that id
        """
        with self._lock:
            feed = self._feeds.get(id)
            if feed is None or feed.is_over:
                feed = self._feeds[id] = _Feed(store, id)
            feed.watchers += 1
            is_first = feed.watchers == 1
        try:
            if is_first:
                _start(feed)
            yield feed
        finally:
            with self._lock:
                feed.watchers -= 1
                if feed.watchers == 0:
                    feed.stop()
                    if self._feeds.get(id) is feed:
                        del self._feeds[id]

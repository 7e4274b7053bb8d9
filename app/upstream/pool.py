"""The idle connections to one server, kept for the next requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from app.threads import Threads
from app.upstream.connection import Line

_threads = Threads("idle connections")


class Pool:
    """Keeps connections between requests, and counts the requests under way.

    :param most: how many connections are kept
    :param longest: seconds for which one is kept
    :param beside_others: whether one is kept while other requests are under way
    """

    def __init__(self, most: int, longest: float, *, beside_others: bool) -> None:
        self._most = most
        self._longest = longest
        self._beside_others = beside_others
        self._idle: list[Line] = []  # the one that has been idle for longest comes first
        self._under_way = 0
        self._is_swept = False
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def take(self) -> Line | None:
        """Return a connection for a request; None when a new one has to be made.

        :meth:`give_back` has to follow in each case.
        """
        with self._lock:
            self._under_way += 1
        while True:
            with self._lock:
                line = self._idle.pop() if self._idle else None
            if line is None or (self._is_fresh(line) and line.is_alive):
                return line
            line.close()

    def give_back(self, line: Line | None, *, may_be_kept: bool) -> None:
        """Keep the connection of a request that is over, or close it.

        :param line: None when no connection was made
        """
        with self._lock:
            self._under_way -= 1
            if line is not None and may_be_kept and self._has_room() and line.is_at_rest:
                self._keep(line)
                line = None
        if line is not None:
            line.close()

    def close(self) -> None:
        """Close what is idle, and from now on each connection that is given back."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
        _close(idle)

    def _has_room(self) -> bool:
        is_welcome = self._beside_others or not self._under_way
        return is_welcome and len(self._idle) < self._most and not self._closed.is_set()

    def _keep(self, line: Line) -> None:
        line.protocol.start_next_cycle()
        line.idle_since = time.monotonic()
        self._idle.append(line)
        if not self._is_swept:
            self._is_swept = True
            _threads.run(self._sweep)

    def _is_fresh(self, line: Line) -> bool:
        return time.monotonic() - line.idle_since < self._longest

    def _sweep(self) -> None:
        """Close what is idle for too long, until nothing is idle any more."""
        due: float | None = 0.0
        while due is not None and not self._closed.wait(max(0.0, due - time.monotonic())):
            with self._lock:
                old = [line for line in self._idle if not self._is_fresh(line)]
                self._idle = self._idle[len(old) :]
                self._is_swept = bool(self._idle)
                due = self._idle[0].idle_since + self._longest if self._idle else None
            _close(old)


def _close(lines: Iterable[Line]) -> None:
    for line in lines:
        line.close()

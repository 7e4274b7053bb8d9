"""The threads of this program, by what they are for.

:class:`Threads` run work at once, a :class:`Recurring` does the same work again and again. All are daemons:
none keeps the process alive.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)

_KEPT_FOR = 30.0  # seconds without work after which a thread ends

_Work = Callable[[], None]


class Threads:
    """Runs each work at once, in a thread that is idle or else in a new one.

    Threads are kept for the next work: to start one is dear where a chat takes two milliseconds.

    :param name: the threads' name
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[SimpleQueue[_Work]] = []
        if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
            os.register_at_fork(after_in_child=self._idle.clear)

    def run(self, work: _Work) -> None:
        """Begin *work*, which raises nothing."""
        try:
            box = self._idle.pop()  # atomic, and the thread that worked last: its memory is in the caches
        except IndexError:
            box = SimpleQueue()
            threading.Thread(target=self._serve, args=(box,), name=self._name, daemon=True).start()
        box.put(work)

    def _serve(self, box: SimpleQueue[_Work]) -> None:
        while True:
            try:
                work = box.get(timeout=_KEPT_FOR)
            except Empty:
                try:
                    self._idle.remove(box)
                except ValueError:  # run() has just taken the box: its work is on the way
                    continue
                return
            work()
            del work  # frees all that it holds
            self._idle.append(box)


class Recurring:
    """Does *work* every *interval* seconds, in a thread of its own.

    The work is done from :meth:`start` on, or else during :meth:`busy` blocks. What it raises is logged, and
    it is tried again after the interval.

    :param name: the thread's name, also in the log
    """

    def __init__(self, name: str, interval: float, work: _Work) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        self._blocks = 0
        self._due = 0.0  # when the work is to be done next, if any block runs then
        self._lock = threading.Lock()
        self._is_busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Do the work at once, and from then on."""
        self._begin(time.monotonic())

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Do the work during this block, for the first time after one interval."""
        self._begin(time.monotonic() + self._interval)
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks and not self._closed.is_set():
                    self._is_busy.clear()

    def close(self, patience: float | None = None) -> None:
        """End the work, and wait until it has ended.

        :param patience: seconds to wait at most
        """
        with self._lock:
            self._closed.set()
            self._is_busy.set()  # wakes the thread where it waits for a block
        if self._thread is not None:
            self._thread.join(patience)

    def _begin(self, due: float) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._due = due
                self._is_busy.set()
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._wait():
            try:
                self._work()
            except Exception:  # the thread's outermost edge: it must not end
                log.exception("%s failed; the next try is in %g seconds", self._name, self._interval)
            self._due = time.monotonic() + self._interval

    def _wait(self) -> bool:
        """Wait until the work is due; False when it is closed instead.

        The thread does not wake up for each block: a block that ends before the work is due costs nothing.
        """
        while not self._closed.is_set():
            self._is_busy.wait()
            if self._closed.wait(self._due - time.monotonic()):
                break
            if self._is_busy.is_set() and time.monotonic() >= self._due:
                return True
        return False

"""The threads of this program, by what they are for.

:class:`Threads` run work at once, a :class:`Recurring` does the same work again and again, and a
:class:`WriteBehind` writes later what must not be waited for. All are daemons: none keeps the process alive.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

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


_Item = TypeVar("_Item")

_PAUSE = 0.5  # seconds in which items gather before they are written
_BATCH = 200
_CLOSING = 10.0  # seconds that the last write may take


class WriteBehind(Generic[_Item]):
    """Writes items in a thread of its own: :meth:`put` never waits, and never fails.

    While writing fails, items wait. Of more than *limit*, the newest are lost and counted in :attr:`lost`:
    the older ones are worth as much, and need not be moved.

    :param name: the thread's name
    :param write: writes a batch, all of it or nothing
    :param passing: the errors of *write* that may pass; an item that raises any other one is lost
    :param failing: what the log says when writing fails
    :param losing: what the log says at the end when items were lost, with ``%d`` for their number
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[_Item]], None],
        *,
        passing: tuple[type[Exception], ...],
        failing: str,
        losing: str,
        limit: int,
    ) -> None:
        self._name = name
        self._write_batch = write
        self._passing = passing
        self._messages = (failing, losing)
        self._limit = limit
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        self._closing = False
        self._failing = False
        self.lost = 0

    def put(self, item: _Item) -> None:
        """Have *item* written, in a while."""
        with self._changed:
            if self._closing or len(self._waiting) >= self._limit:
                self.lost += 1
                return
            self._waiting.append(item)
            if self._writer is None:
                self._writer = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._writer.start()
                atexit.register(self.close)  # where nobody else closes it, as under gunicorn
            if len(self._waiting) in {1, _BATCH}:
                self._changed.notify()

    def close(self) -> None:
        """Write what is still to be written; what cannot be written now is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            writer = self._writer
        if writer is not None:
            writer.join(_CLOSING)
            atexit.unregister(self.close)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()
        if self.lost:
            log.warning(self._messages[1], self.lost)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                self._changed.wait_for(self._is_due, _PAUSE)
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                closing = self._closing
            if not batch:
                return
            if left := self._write(batch):
                with self._changed:
                    self._waiting.extendleft(reversed(left))
                if closing:
                    return

    def _is_due(self) -> bool:
        return self._closing or (len(self._waiting) >= _BATCH and not self._failing)

    def _write(self, batch: list[_Item]) -> list[_Item]:
        """Write *batch*, item by item where the whole fails; return those that are to be tried again."""
        try:
            self._write_batch(batch)
        except Exception as exc:  # noqa: BLE001 - the thread's outermost edge: it must not end
            self._give_up(exc)
            if isinstance(exc, self._passing):
                return batch
            if len(batch) == 1:
                self.lost += 1
                return []
        else:
            self._failing = False
            return []
        for number, item in enumerate(batch):
            if self._write([item]):
                return batch[number:]
        return []

    def _give_up(self, exc: Exception) -> None:
        if not self._failing:  # once, however long it lasts
            log.warning("%s: %s", self._messages[0], type(exc).__name__, exc_info=exc)
        self._failing = True

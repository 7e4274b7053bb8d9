"""Helpers that run work in threads.

:class:`Threads` runs each piece of work at once, :class:`Recurring` repeats one piece of work, and
:class:`WriteBehind` writes items without making its caller wait. All threads are daemons: none keeps the
process alive.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from app.forks import in_each_fork, start_thread
from app.outages import Outage

log = logging.getLogger(__name__)

_KEPT_FOR = 30.0  # seconds without work after which a thread ends

_Work = Callable[[], None]


class Threads:
    """Runs work at once, in an idle thread or else in a new one.

    A thread stays for the next work, because starting one costs too much when a chat takes two milliseconds.

    :param name: the name of the threads
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[SimpleQueue[_Work]] = []
        in_each_fork(self._forget)

    def _forget(self) -> None:
        self._idle.clear()

    def run(self, work: _Work) -> None:
        """Start *work* in a thread; it must not raise."""
        try:
            # pop() is atomic, and takes the thread that worked last: the CPU's caches still hold its memory.
            box = self._idle.pop()
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
                except ValueError:  # run() has just taken the box, and is about to put work into it
                    continue
                return
            work()
            del work  # an idle thread must not keep the objects of its last work alive
            self._idle.append(box)


class Recurring:
    """Does *work* every *interval* seconds, in its own thread.

    :meth:`start` begins it for good; a :meth:`busy` block, only for the time of the block. When the work
    raises an exception, it is tried again after the interval; the first exception of an outage is logged.

    A process that is forked begins without blocks, and without the thread.

    :param name: the name of the thread, also in the log
    """

    def __init__(self, name: str, interval: float, work: _Work) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        self._outage = Outage(name)
        self._closed = threading.Event()
        self._reset()
        in_each_fork(self._reset)

    def _reset(self) -> None:
        self._blocks = 0
        self._due = 0.0  # when to do the work next, if a block is open then
        self._lock = threading.Lock()
        self._is_busy = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def failure(self) -> str:
        """A sentence that says why the work, which should be done now, is not done; empty if it is."""
        if not self._blocks or self._closed.is_set():
            return ""
        if not _is_alive(self._thread):
            return f"Background work does not run ({self._name}): restart the server."
        return self._outage.reason

    def start(self) -> None:
        """Do the work at once, and then after each interval."""
        self._begin(time.monotonic())

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Do the work as long as this block is open, for the first time after one interval."""
        self._begin(time.monotonic() + self._interval)
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks and not self._closed.is_set():
                    self._is_busy.clear()

    def close(self, patience: float | None = None) -> None:
        """Stop, and wait for work that is under way.

        :param patience: the longest wait in seconds; None for no limit
        """
        with self._lock:
            self._closed.set()
            self._is_busy.set()  # wakes the thread if it waits for a block
        if self._thread is not None:
            self._thread.join(patience)

    def _begin(self, due: float) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._due = due
                self._is_busy.set()
            if not _is_alive(self._thread) and not self._closed.is_set():
                self._thread = start_thread(self._name, self._run)

    def _run(self) -> None:
        while self._wait():
            try:
                self._work()
            except Exception as exc:  # noqa: BLE001 - the thread's outermost edge: the thread must not end
                self._outage.begin(exc)
            else:
                self._outage.end()
            self._due = time.monotonic() + self._interval

    def _wait(self) -> bool:
        """Wait until the work is due and a block is open; return False after :meth:`close`.

        The thread sleeps until the work is due, and only then looks for open blocks: short blocks do not wake
        it.
        """
        while not self._closed.is_set():
            self._is_busy.wait()
            if self._closed.wait(self._due - time.monotonic()):
                break
            if self._is_busy.is_set() and time.monotonic() >= self._due:
                return True
        return False


_Item = TypeVar("_Item")

_PAUSE = 0.5  # seconds from an item to the write, so that items can be written together
_BATCH = 200  # items that are written at once, without that pause
_CLOSING = 10.0  # seconds that the last write may take


class WriteBehind(Generic[_Item]):
    """Writes items in its own thread: :meth:`put` neither waits nor fails.

    While writing fails, items wait. When *limit* items wait, further ones are lost, and counted in
    :attr:`lost`. A process that is forked begins without items: its parent writes them.

    :param name: the name of the thread
    :param write: writes a batch, all of it or nothing
    :param passing: the errors of *write* that are temporary; an item that raises another error is lost
    :param failing: the log's message when writing fails
    :param losing: the log's message at the end when items were lost, with ``%d`` for their number
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
        self._closing = False
        self._reset()
        in_each_fork(self._reset)

    def _reset(self) -> None:
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        self._failing = False
        self._is_stuck = False  # whether the last batch has to be written again
        self.lost = 0

    @property
    def failure(self) -> str:
        """A sentence that says why items wait; empty if none has to."""
        return f"Background work fails ({self._name}): {self._messages[0]}." if self._is_stuck else ""

    def put(self, item: _Item) -> None:
        """Queue *item* for writing."""
        with self._changed:
            if self._closing or len(self._waiting) >= self._limit:
                self.lost += 1
                return
            self._waiting.append(item)
            if not _is_alive(self._writer):
                self._writer = start_thread(self._name, self._run)
                atexit.register(self.close)  # under gunicorn, nothing calls close()
            if len(self._waiting) in {1, _BATCH}:
                self._changed.notify()

    def close(self) -> None:
        """Write the items that wait; those that cannot be written now are lost."""
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
            left = self._write(batch)
            self._is_stuck = bool(left)
            if left:
                with self._changed:
                    self._waiting.extendleft(reversed(left))
                if closing:
                    return

    def _is_due(self) -> bool:
        return self._closing or (len(self._waiting) >= _BATCH and not self._failing)

    def _write(self, batch: list[_Item]) -> list[_Item]:
        """Write *batch*, or each item alone if the batch fails; return the items to try again."""
        try:
            self._write_batch(batch)
        except Exception as exc:  # noqa: BLE001 - the thread's outermost edge: the thread must not end
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
        if not self._failing:  # one line for a whole outage
            unknown = None if isinstance(exc, self._passing) else exc
            log.warning("%s: %s", self._messages[0], type(exc).__name__, exc_info=unknown)
        self._failing = True


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()

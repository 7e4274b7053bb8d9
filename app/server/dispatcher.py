"""The threads that serve requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from waitress.task import Task, ThreadedTaskDispatcher

log = logging.getLogger(__name__)


class GrowingDispatcher(ThreadedTaskDispatcher):
    """Waitress's threads; a request starts a new one when none is idle, and :meth:`shrink` ends idle ones.

    :param limit: the largest number of threads
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._is_refused = False  # whether the system refused to start the last thread
        self._needed = 0  # the most threads that worked at once since the last shrink()

    @property
    def is_short(self) -> bool:
        """Whether requests wait and no more threads can be started for them."""
        return bool(self.queue) and (self._is_refused or len(self.threads) >= self._limit)

    def add_task(self, task: Task) -> None:
        """Queue *task*, and start a thread for it when none is idle."""
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()
            idle = len(self.threads) - self.stop_count - self.active_count
            waiting, running = len(self.queue) - idle, len(self.threads)
            self._needed = max(self._needed, self.active_count + len(self.queue))
        if waiting > 0 and running < self._limit:
            self.set_thread_count(running + 1)
        elif waiting > 0:
            log.warning("%d requests wait for a thread: BACKEND_THREADS is %d", waiting, self._limit)

    def start_new_thread(self, target: Callable[[int], object], thread_no: int) -> None:
        """Start a thread; if the system allows no more of them, the requests wait for those that run."""
        try:
            threading.Thread(
                target=target, name=f"waitress-{thread_no}", args=(thread_no,), daemon=True
            ).start()
            self._is_refused = False
        except RuntimeError:
            self._is_refused = True
            self.threads.discard(thread_no)
            self.active_count -= 1  # the caller adds one
            log.warning("The system starts no more threads: %d run.", len(self.threads))

    def shrink(self) -> None:
        """End the threads that were not needed since the last call."""
        with self.lock:
            needed, self._needed = max(1, self._needed), self.active_count + len(self.queue)
            running = len(self.threads) - self.stop_count
        if running > needed:
            self.set_thread_count(needed)

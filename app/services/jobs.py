"""Background work: huey's queue, and the workers that take from it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from huey import Huey, RedisHuey, SqliteHuey
from huey.consumer import Consumer, Scheduler

log = logging.getLogger(__name__)

_RECOVERY_INTERVAL = 5.0  # seconds


class Jobs:
    """The queue, and this process's workers where it has some.

    What is to be done is kept in the database; the queue only wakes a worker, and losing it loses nothing.

    :param redis_url: the queue that several machines share; else a file in *data_dir*
    :param run: runs a pull, by its id
    :param waiting: returns the ids of the pulls that want a worker
    """

    def __init__(
        self,
        redis_url: str,
        data_dir: Path,
        workers: int,
        run: Callable[[str], None],
        waiting: Callable[[], list[str]],
    ) -> None:
        self._huey = _make_huey(redis_url, data_dir)
        self._task = self._huey.task(name="run_pull")(run)
        self._workers = workers
        self._waiting = waiting
        self._shared = bool(redis_url)
        self._consumer: _Consumer | None = None
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    def enqueue(self, id: str) -> None:
        """Give a pull to a worker; without Redis, to one of this process."""
        if not self._shared:
            self.start()
        self._task(id)

    def start(self) -> None:
        """Start this process's workers, once; what the last run left unfinished goes on."""
        with self._lock:
            if self._consumer is None and not self.stopping.is_set():
                self._consumer = _Consumer(self._huey, self._workers, self._recover)
                self._consumer.start()

    def stop(self) -> None:
        """Stop the workers; what they do goes back to the queue."""
        self.stopping.set()
        with self._lock:
            if self._consumer is not None:
                self._consumer.stop(graceful=True)
                self._consumer = None
        self._huey.storage.close()

    def _recover(self) -> None:
        for id in self._waiting():
            self._task(id)


class _Consumer(Consumer):  # type: ignore[misc]  # huey has no types
    """Huey's consumer as a part of a program that has signal handlers of its own."""

    def __init__(self, huey: Huey, workers: int, recover: Callable[[], None]) -> None:
        self._recover = recover
        super().__init__(huey, workers=workers, max_delay=0.5, check_worker_health=False)

    def _create_scheduler(self) -> Scheduler:
        scheduler = _Scheduler(self.huey, self.stop_flag, self.scheduler_interval, self.periodic)
        scheduler.recover = self._recover
        return scheduler

    def _set_signal_handlers(self) -> None:
        """Leave the signals to the program."""


class _Scheduler(Scheduler):  # type: ignore[misc]  # huey has no types
    """Huey's scheduler, which also looks for work that was left: pulls whose process died."""

    recover: Callable[[], None]
    _due = 0.0

    def loop(self, now: object = None) -> None:
        """Do what is due."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _RECOVERY_INTERVAL
            self.recover()
        super().loop(now)


def _make_huey(redis_url: str, data_dir: Path) -> Huey:
    if redis_url:
        return RedisHuey("ollama-backend", url=redis_url, results=False)
    return SqliteHuey("ollama-backend", filename=str(data_dir / "queue.db"), results=False)

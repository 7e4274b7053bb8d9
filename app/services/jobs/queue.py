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
_CHORES_INTERVAL = 15.0
_CHORES_PATIENCE = 5.0  # seconds that a chore may take when the program is to end


class Jobs:
    """The queue, and this process's workers where it has some.

    What is to be done is kept in the database; the queue only wakes a worker, and losing it loses nothing.

    :param redis_url: the queue that several machines share; else a file in *data_dir*
    """

    def __init__(self, redis_url: str, data_dir: Path, workers: int) -> None:
        self._huey = _make_huey(redis_url, data_dir)
        self._workers = workers
        self._shared = bool(redis_url)
        self._consumer: _Consumer | None = None
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    def assign(
        self, run: Callable[[str], None], waiting: Callable[[], list[str]], chores: Callable[[], None]
    ) -> None:
        """Say what the workers do; before anything is given to them.

        :param run: runs a pull, by its id
        :param waiting: returns the ids of the pulls that want a worker
        :param chores: what is to be looked after now and then, in a thread of its own
        """
        self._task = self._huey.task(name="run_pull")(run)
        self._waiting = waiting
        self._chores = chores

    def enqueue(self, id: str) -> None:
        """Give a pull to a worker; without Redis, to one of this process."""
        if not self._shared:
            self.start()
        self._task(id)

    def start(self) -> None:
        """Start this process's workers, once; what the last run left unfinished goes on."""
        with self._lock:
            if self._consumer is None and not self.stopping.is_set():
                self._consumer = _Consumer(self._huey, self._workers, self._recover, self._do_chores)
                self._consumer.start()

    def stop(self) -> None:
        """Stop the workers; what they do goes back to the queue."""
        self.stopping.set()
        with self._lock:
            if self._consumer is not None:
                self._consumer.stop(graceful=True)
                self._consumer.end_chores()
                self._consumer = None
        self._huey.storage.close()

    def _recover(self) -> None:
        if self._huey.pending_count() == 0:  # else the workers have enough to do
            for id in self._waiting():
                self._task(id)

    def _do_chores(self) -> None:
        if self.stopping.is_set():
            return
        try:
            self._chores()
        except Exception:  # the outermost edge: the next round tries again
            log.exception("a chore failed")


class _Consumer(Consumer):  # type: ignore[misc]  # huey has no types
    """Huey's consumer as a part of a program that has signal handlers of its own."""

    def __init__(
        self, huey: Huey, workers: int, recover: Callable[[], None], chores: Callable[[], None]
    ) -> None:
        self._recover = recover
        self._chores = chores
        super().__init__(huey, workers=workers, max_delay=0.5, check_worker_health=False)

    def _create_scheduler(self) -> Scheduler:
        scheduler = _Scheduler(self.huey, self.stop_flag, self.scheduler_interval, self.periodic)
        scheduler.recover, scheduler.chores = self._recover, self._chores
        self._with_chores = scheduler
        return scheduler

    def end_chores(self) -> None:
        """Wait a moment for a chore that is being done: the database is closed after that."""
        self._with_chores.end_chores(_CHORES_PATIENCE)

    def _set_signal_handlers(self) -> None:
        """Leave the signals to the program."""


class _Scheduler(Scheduler):  # type: ignore[misc]  # huey has no types
    """Huey's scheduler, which also looks for work that was left, and has the chores done."""

    recover: Callable[[], None]
    chores: Callable[[], None]
    _due = 0.0
    _chores_due = 0.0
    _chores_thread: threading.Thread | None = None

    def loop(self, now: object = None) -> None:
        """Do what is due."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _RECOVERY_INTERVAL
            self.recover()
        if time.monotonic() >= self._chores_due and not self._is_at_chores():
            self._chores_due = time.monotonic() + _CHORES_INTERVAL
            self._chores_thread = threading.Thread(target=self.chores, name="chores", daemon=True)
            self._chores_thread.start()
        super().loop(now)

    def end_chores(self, patience: float) -> None:
        """Wait for the chore that is being done, for *patience* seconds at most."""
        if self._chores_thread is not None:
            self._chores_thread.join(patience)

    def _is_at_chores(self) -> bool:
        return self._chores_thread is not None and self._chores_thread.is_alive()


def _make_huey(redis_url: str, data_dir: Path) -> Huey:
    if redis_url:
        return RedisHuey("ollama-backend", url=redis_url, results=False)
    return SqliteHuey("ollama-backend", filename=str(data_dir / "queue.db"), results=False)

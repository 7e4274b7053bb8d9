"""Run background work: huey's queue, its workers, and recurring work."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from huey import Huey, RedisHuey, SqliteHuey
from huey.exceptions import ConfigurationError

from app.storage.damaged import set_aside_damaged_database
from app.storage.failures import storage_error
from app.storage.folder import make_private
from app.threads import Recurring

_RECOVERY_INTERVAL = 5.0  # seconds
_CHORES_INTERVAL = 15.0
_PATIENCE = 5.0  # seconds that stop() waits for recovery or a chore
_POLL = 0.5  # seconds between two looks of an idle worker at the queue; the file queue cannot wake it


class Jobs:
    """The queue, and this process's workers once they are started.

    The database keeps the pulls. The queue only wakes a worker: when the queue is lost, no pull is lost.

    :param redis_url: the queue that several machines share; empty for a queue in a file in *data_dir*
    """

    def __init__(self, redis_url: str, data_dir: Path, workers: int) -> None:
        self._huey = _make_huey(redis_url, data_dir)
        self._number_of_workers = workers
        self._shared = bool(redis_url)
        self._workers: _Workers | None = None
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    def assign(
        self, run: Callable[[str], None], waiting: Callable[[], list[str]], chores: Callable[[], None]
    ) -> None:
        """Set the work of the workers; to be called before all other methods.

        :param run: runs a pull, by its id
        :param waiting: returns the ids of the pulls that need a worker
        :param chores: is called every few seconds
        """
        self._task = self._huey.task(name="run_pull")(run)
        self._waiting = waiting
        self._chores = chores

    def enqueue(self, id: str) -> None:
        """Give a pull to a worker."""
        if not self._shared:  # without Redis there may be no other process with workers
            self.start()
        self._task(id)

    def start(self) -> None:
        """Start this process's workers, if they do not run yet; they go on with unfinished pulls."""
        with self._lock:
            if self._workers is None and not self.stopping.is_set():
                recovery = Recurring("recovery of pulls", _RECOVERY_INTERVAL, self._recover)
                chores = Recurring("chores", _CHORES_INTERVAL, self._chores)
                self._workers = _Workers(self._huey, self._number_of_workers, recovery, chores)

    def stop(self) -> None:
        """Stop the workers; their pulls go back to the queue."""
        self.stopping.set()
        with self._lock:
            if self._workers is not None:
                self._workers.stop()
                self._workers = None
        self._huey.storage.close()

    def _recover(self) -> None:
        if self._huey.pending_count() == 0:  # else the queue still has work for the workers
            for id in self._waiting():
                self._task(id)


class _Workers:
    """The running workers of this process, and its recurring work.

    Only the worker threads of huey's consumer are started: its ``start()`` would replace the program's signal
    handlers, and its scheduler serves only tasks with a given time, of which there are none.
    """

    def __init__(self, huey: Huey, number: int, *recurring: Recurring) -> None:
        self._consumer = huey.create_consumer(workers=number, max_delay=_POLL)
        self._threads = [thread for _, thread in self._consumer.worker_threads]
        self._recurring = recurring
        for thread in self._threads:
            thread.start()
        for work in recurring:
            work.start()

    def stop(self) -> None:
        """Stop the workers, and wait for them; wait for the recurring work only a moment."""
        self._consumer.stop()
        for work in self._recurring:
            work.close(_PATIENCE)
        for thread in self._threads:
            thread.join()


def _make_huey(redis_url: str, data_dir: Path) -> Huey:
    try:
        if redis_url:
            return RedisHuey("ollama-backend", url=redis_url, results=False)
        file = data_dir / "queue.db"
        set_aside_damaged_database(file)  # the database has all that is in it
        make_private(file)
        return SqliteHuey("ollama-backend", filename=str(file), results=False)
    except ConfigurationError as exc:  # huey found no package for Redis
        raise storage_error("redis_driver") from exc
    except ValueError as exc:
        raise storage_error("redis_address") from exc
    except sqlite3.Error as exc:
        raise storage_error("queue") from exc

"""Run pulls in the workers of this process, find the pulls that nobody runs, and do the recurring chores."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from app.errors import StorageFailed
from app.forks import in_each_fork, start_thread
from app.outages import Outage
from app.services.jobs.bell import Bell
from app.storage.damaged import set_aside_damaged_database
from app.threads import Recurring

log = logging.getLogger(__name__)

_RECOVERY_INTERVAL = 5.0  # seconds
_CHORES_INTERVAL = 15.0
_LISTEN_INTERVAL = 0.2
_PATIENCE = 5.0  # seconds that stop() waits for the workers, and then for each recurring work


class Jobs:
    """The workers of this process, once they are started.

    The database is the queue: it keeps the pulls, and a worker claims a pull there before it runs it. So the
    workers of all processes can run at the same time. A worker learns of a pull from :meth:`enqueue`, from
    another process over Redis, or from the recovery, which looks into the database every few seconds: when a
    message or a process is lost, no pull is lost.

    :param redis_url: the Redis over which several machines wake each other's workers; may be empty
    :raises StorageFailed: when there is no driver for Redis, or *redis_url* is no address of one
    """

    def __init__(self, redis_url: str, data_dir: Path, workers: int) -> None:
        self._bell = Bell(redis_url) if redis_url else None
        self._number_of_workers = workers
        self._runs = Outage("pulls")
        self.stopping = threading.Event()
        self._reset()
        in_each_fork(self._reset)
        _remove_old_queue(data_dir)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._due: SimpleQueue[str | None] = SimpleQueue()  # None ends the workers
        self._workers: list[threading.Thread] = []
        self._recurring: list[Recurring] = []

    def assign(
        self, run: Callable[[str], None], waiting: Callable[[], list[str]], chores: Callable[[], None]
    ) -> None:
        """Set the work of the workers; to be called before all other methods.

        :param run: runs a pull, by its id
        :param waiting: returns the ids of the pulls that need a worker
        :param chores: is called every few seconds
        """
        self._run = run
        self._waiting = waiting
        self._chores = chores

    @property
    def failures(self) -> list[str]:
        """Sentences that say which background work fails, or does not run although it was started."""
        found = [self._runs.reason, *(work.failure for work in self._recurring)]
        if self._recurring and not self.stopping.is_set() and not all(w.is_alive() for w in self._workers):
            found.append("Background work does not run (pulls): restart the server.")
        return [failure for failure in found if failure]

    def enqueue(self, id: str) -> None:
        """Wake a worker for a pull, which is in the database; this does not fail."""
        if self._bell is not None:
            try:
                self._bell.ring(id)
            except StorageFailed as exc:
                log.warning("the workers of other processes are not told of a pull: %s", exc.message)
            else:
                return
        self.start()  # there may be no other process with workers
        self._due.put(id)

    def start(self) -> None:
        """Start this process's workers, as far as they do not run; they go on with unfinished pulls."""
        with self._lock:
            if self.stopping.is_set():
                return
            alive = [worker for worker in self._workers if worker.is_alive()]
            missing = self._number_of_workers - len(alive)
            started = [start_thread("Worker", self._work) for _ in range(missing)]
            self._workers = alive + [worker for worker in started if worker]
            if not self._recurring:
                self._recurring = self._make_recurring()
                for work in self._recurring:
                    work.start()

    def stop(self) -> None:
        """Stop the workers; their pulls go back to the queue."""
        self.stopping.set()
        with self._lock:  # from now on, nothing is started
            workers, recurring = self._workers, self._recurring
            self._workers, self._recurring = [], []
        self._due.put(None)
        end = time.monotonic() + _PATIENCE
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
        for work in recurring:
            work.close(_PATIENCE)
        if self._bell is not None:
            self._bell.close()

    def _make_recurring(self) -> list[Recurring]:
        recurring = [
            Recurring("recovery of pulls", _RECOVERY_INTERVAL, self._recover),
            Recurring("chores", _CHORES_INTERVAL, self._chores),
        ]
        if self._bell is not None:
            recurring.append(Recurring("messages over Redis", _LISTEN_INTERVAL, self._listen))
        return recurring

    def _work(self) -> None:
        """Run the pulls that are due, until the workers are stopped."""
        while (id := self._due.get()) is not None and not self.stopping.is_set():
            self._try(id)
        self._due.put(None)  # for the next worker

    def _try(self, id: str) -> None:
        try:
            self._run(id)
        except Exception as exc:  # noqa: BLE001 - the recovery finds the pull again
            self._runs.begin(exc)
        else:
            if self._runs.reason:
                self._runs.end()

    def _recover(self) -> None:
        self.start()  # a worker that has ended
        if self._due.empty():  # else the workers have enough to do
            waiting = self._waiting()
            for id in waiting:
                self._due.put(id)
            if not waiting:
                self._runs.end()

    def _listen(self) -> None:
        """Take the messages from Redis, until none comes for a moment."""
        bell = self._bell
        while bell is not None and not self.stopping.is_set() and (id := bell.wait()) is not None:
            if id:
                self._due.put(id)


def _remove_old_queue(data_dir: Path) -> None:
    """Remove the queue of older versions, whose pulls are in the database, too."""
    path = data_dir / "queue.db"
    set_aside_damaged_database(path)
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()

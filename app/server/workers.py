"""Serve one port with several processes.

The process that is started only keeps the others, the workers: it forks them, starts one again that dies,
and passes on a stop. The workers accept from one socket, so that no connection is lost when one of them dies;
each leaves a new connection to a worker that has fewer.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from app.config import StartFailed
from app.stopping import LIMIT

log = logging.getLogger(__name__)

_GRACE = 2.0  # seconds more than a worker takes at most to stop
_PAUSE = 1.0  # seconds before a worker is started again that died while it started
_ABSENT = -1  # instead of the number of connections
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """This process as one of several.

    :param number: from 0
    :param counts: the connections of each worker, in memory that all of them share
    :param keeper: can be read when the process that keeps the workers is gone
    """

    def __init__(self, number: int, counts: memoryview, keeper: int, first: int) -> None:
        self.number = number
        self._counts = counts
        self._keeper = keeper
        self._first = first

    @property
    def is_first(self) -> bool:
        """Whether this worker does what only one may do."""
        return self.number == 0

    @property
    def has_fewest(self) -> bool:
        """Whether no other worker has fewer connections."""
        return self._counts[self.number] <= min(count for count in self._counts if count != _ABSENT)

    def note(self, connections: int) -> None:
        """Tell the other workers how many connections this one has."""
        self._counts[self.number] = connections

    def let_others_start(self) -> None:
        """Let the other workers start: what this one starts for all of them runs."""
        if self._first >= 0:
            os.close(self._first)
            self._first = -1

    def follow(self, stop: Callable[[], None]) -> None:
        """Call *stop* in a thread when the process that keeps the workers is gone."""

        def wait() -> None:
            os.read(self._keeper, 1)
            stop()

        threading.Thread(target=wait, name="keeper", daemon=True).start()


def start_workers(number: int) -> Worker:
    """Fork *number* workers and keep them until a stop; this returns in each of the workers only.

    :raises StartFailed: when the system cannot fork
    :raises SystemExit: in the process that keeps the workers, after the last of them
    """
    if not hasattr(os, "fork"):
        raise StartFailed(
            "Several workers need a system that can fork a process, and Windows cannot: use one."
        )
    return _Keeper(number).run()


class _Keeper:
    """Keeps the workers.

    :param number: how many there are
    """

    def __init__(self, number: int) -> None:
        self._pids: dict[int, int] = {}  # the number of each process
        self._counts = memoryview(mmap.mmap(-1, 8 * number)).cast("q")
        self._is_stopping = False
        self._status = 0
        self._alive, self._own_end = os.pipe()
        for slot in range(number):
            self._counts[slot] = _ABSENT

    def run(self) -> Worker:
        """Fork the workers, and each again that dies."""
        for how in _SIGNALS:
            signal.signal(how, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        waiting, first = os.pipe()
        if worker := self._fork(0, first, waiting):
            return worker
        os.close(first)
        os.read(waiting, 1)  # ends when the first worker closes its end, or dies
        os.close(waiting)
        if self._counts[0] != _ABSENT:  # else it has died
            for number in range(1, len(self._counts)):
                if worker := self._fork(number):
                    return worker
        while self._pids:
            number = self._wait()
            if not self._is_stopping and (worker := self._fork(number)):
                return worker
        sys.exit(self._status)

    def _fork(self, number: int, first: int = -1, *unused: int) -> Worker | None:
        """Start a worker; return it in its own process."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = 0 if self._is_stopping else os.fork()
            if self._is_stopping:
                return None
            if pid:
                self._pids[pid] = number
                return None
            for how in _SIGNALS:  # until the server handles them
                signal.signal(how, lambda *_: sys.exit(0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for end in (self._own_end, *unused):
            os.close(end)
        return Worker(number, self._counts, self._alive, first)

    def _wait(self) -> int:
        """Wait until a worker ends; return its number."""
        pid, status = os.wait()
        number = self._pids.pop(pid)
        has_started = self._counts[number] != _ABSENT
        self._counts[number] = _ABSENT
        if self._is_stopping:
            return number
        code = os.waitstatus_to_exitcode(status)
        how = f"status {code}" if code >= 0 else f"signal {-code}"
        if not has_started and all(count == _ABSENT for count in self._counts):
            self._status = code if code > 0 else 1
            self._stop()
        elif not self._is_stopping:
            log.error("Worker %d, process %d, ended with %s; it is started again.", number, pid, how)
            time.sleep(0 if has_started else _PAUSE)
        return number

    def _stop(self, *_: object) -> None:
        """Stop all workers; those that do not end in time are killed."""
        self._is_stopping = True
        self._send(signal.SIGTERM)
        signal.alarm(int(LIMIT + _GRACE))

    def _kill(self, *_: int | FrameType | None) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        for pid in list(self._pids):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

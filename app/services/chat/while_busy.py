"""Work that recurs as long as something goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class WhileBusy:
    """Has *work* done every *interval* seconds, by a thread of its own, while any :meth:`busy` block runs.

    :param work: raises nothing
    """

    def __init__(self, name: str, interval: float, work: Callable[[], None]) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        self._blocks = 0
        self._lock = threading.Lock()
        self._is_busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have the work done during this block; the thread is started by the first one."""
        with self._lock:
            self._blocks += 1
            self._is_busy.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks and not self._closed.is_set():
                    self._is_busy.clear()

    def close(self) -> None:
        """End the work."""
        with self._lock:
            self._closed.set()
            self._is_busy.set()  # a thread that has nothing to do waits for this
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            self._is_busy.wait()
            self._work()

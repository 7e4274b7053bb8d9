"""Threads that are kept for the next work, because starting one takes a part of a chat's two milliseconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_KEPT_FOR = 30.0  # seconds without work

_Work = Callable[[], None]


class Threads:
    """Runs each work at once, in a thread that is idle or else in a new one.

    :param name: the threads' name
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[SimpleQueue[_Work]] = []
        if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
            os.register_at_fork(after_in_child=self._idle.clear)

    def run(self, work: _Work) -> None:
        """Start *work*, which must not raise."""
        try:
            box = self._idle.pop()  # atomic, and the one that worked last: it is warm
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
                except ValueError:  # run() has just taken the box: work is on the way
                    continue
                return
            work()
            del work  # so that what it holds is freed while the thread is idle
            self._idle.append(box)

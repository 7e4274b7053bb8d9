"""Start threads, and begin anew in a process that is forked: a fork copies locks, but no threads."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable

log = logging.getLogger(__name__)


def in_each_fork(method: Callable[[], None]) -> None:
    """Call *method* first in each process that is forked from now on, as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (found := reference()) is not None:
            found()

    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=call)


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread | None:
    """Start a thread that keeps no process alive; return None if the system allows no more threads."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        log.warning("%s cannot start: the system allows no more threads", name)
        return None
    return thread

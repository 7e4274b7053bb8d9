"""Whether this process is being stopped.

A signal stops the process, so there is one event for the whole process, not one for each app. Each wait for
an upstream looks at it, and each new request does. So every answer under way ends within one tick, with the
error :class:`~app.errors.ServerStopping`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time

log = logging.getLogger(__name__)

stopping = threading.Event()
"""Is set when the process is being stopped; it stays set."""

LIMIT = 8.0
"""Seconds in which the process ends, once it is being stopped."""


def limit_stop() -> None:
    """Let the process end :data:`LIMIT` seconds after :data:`stopping` is set, whatever still runs then."""
    # Started now and not by the signal: a signal's handler must not take locks, and starting a thread does.
    threading.Thread(target=_end_in_time, name="stop limit", daemon=True).start()
    # Callers register what closes their services after this, so that it runs before. Then Python would end
    # the thread above and close the database's connections, and wait for running statements.
    atexit.register(_end_at_once)


def _end_at_once() -> None:
    if stopping.is_set():
        logging.shutdown()
        os._exit(0)


def _end_in_time() -> None:
    stopping.wait()
    time.sleep(LIMIT)
    log.warning("something still runs %g seconds after the stop began; the process ends without it", LIMIT)
    os._exit(0)

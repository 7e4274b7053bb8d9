"""Let requests wait for a server that this program is starting."""

from __future__ import annotations

import threading
import time

from app.errors import ServerStopping
from app.stopping import stopping

START_LIMIT = 30.0
"""Seconds that a server may take to start; requests wait no longer than that."""

_TICK = 0.5  # seconds between two looks at whether this process is being stopped


class Readiness:
    """Whether the server that this program starts answers; at first there is no such server."""

    def __init__(self) -> None:
        self.is_ready = threading.Event()
        """Is set unless requests to the server have to wait; ask this first, because it costs nothing."""
        self.is_ready.set()
        self._url = ""

    def starting(self, url: str) -> None:
        """Let requests to *url* wait: the server there is being started, or started again."""
        self._url = url
        self.is_ready.clear()

    def started(self) -> None:
        """Let the requests go on: the server answers."""
        self.is_ready.set()

    def given_up(self) -> None:
        """Let the requests go on: this program starts no server any more."""
        self._url = ""
        self.is_ready.set()

    def supervises(self, url: str) -> bool:
        """Tell whether this program starts the server at *url*, and starts it again when it dies."""
        return bool(url) and url == self._url

    def wait(self, url: str, limit: float) -> None:
        """Wait until requests can be sent to *url*, for *limit* seconds at most.

        :raises ServerStopping: when this process is being stopped
        """
        deadline = time.monotonic() + min(limit, START_LIMIT)
        while self.supervises(url) and time.monotonic() < deadline:
            if self.is_ready.wait(_TICK) or stopping.is_set():
                break
        if stopping.is_set():  # then the server is not started any more
            raise ServerStopping

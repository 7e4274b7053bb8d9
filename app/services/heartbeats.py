"""Signs of life of the answers that are being made in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.services.conversation_store import HEARTBEAT, ConversationStore, Ticket


class Heartbeats:
    """Says for every answer that is being made that it is; a client that takes its time does not matter."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._open: dict[int, tuple[Ticket, Callable[[], str]]] = {}
        self._lock = threading.Lock()
        self._some_are_open = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def of(self, ticket: Ticket, so_far: Callable[[], str]) -> Iterator[None]:
        """Say inside of the block that the answer of *ticket* is being made.

        :param so_far: tells its text, which is kept with each sign: it survives a crash
        """
        with self._lock:
            self._open[id(ticket)] = (ticket, so_far)
            self._some_are_open.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="chat heartbeats", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._open[id(ticket)]
                if not self._open:
                    self._some_are_open.clear()

    def close(self) -> None:
        """End the signs."""
        self._closed.set()
        self._some_are_open.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            self._some_are_open.wait()
            with self._lock:
                tickets = list(self._open.values())
            for ticket, so_far in tickets:
                self._store.touch(ticket, so_far())

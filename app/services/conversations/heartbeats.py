"""Heartbeats of the running answers of this process, by which other processes know that they still run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.services.conversations.store import HEARTBEAT, ConversationStore, Ticket
from app.threads import Recurring


class Heartbeats:
    """Writes a heartbeat for every running answer, from its own thread: a slow client does not delay it."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._open: dict[int, tuple[Ticket, Callable[[], str]]] = {}
        self._signs = Recurring("heartbeats of answers in conversations", HEARTBEAT, self._beat)

    @property
    def failure(self) -> str:
        """A sentence that says why heartbeats cannot be written; empty if they can."""
        return self._signs.failure

    @contextmanager
    def of(self, ticket: Ticket, so_far: Callable[[], str]) -> Iterator[None]:
        """Write heartbeats for the answer of *ticket* until the block ends.

        :param so_far: returns the text of the answer, which is saved with each heartbeat, in case of a crash
        """
        self._open[id(ticket)] = (ticket, so_far)
        try:
            with self._signs.busy():
                yield
        finally:
            del self._open[id(ticket)]

    def close(self) -> None:
        """Stop the heartbeats."""
        self._signs.close()

    def _beat(self) -> None:
        for ticket, so_far in list(self._open.values()):
            self._store.touch(ticket, so_far())

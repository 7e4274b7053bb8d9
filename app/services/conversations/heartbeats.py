"""Signs of life of the answers that are being made in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.services.conversations.store import HEARTBEAT, ConversationStore, Ticket
from app.threads import Recurring


class Heartbeats:
    """Says for every answer that is being made that it is; a client that takes its time does not matter."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._open: dict[int, tuple[Ticket, Callable[[], str]]] = {}
        self._signs = Recurring("chat heartbeats", HEARTBEAT, self._beat)

    @contextmanager
    def of(self, ticket: Ticket, so_far: Callable[[], str]) -> Iterator[None]:
        """Say inside of the block that the answer of *ticket* is being made.

        :param so_far: tells its text, which is kept with each sign: it survives a crash
        """
        self._open[id(ticket)] = (ticket, so_far)
        try:
            with self._signs.busy():
                yield
        finally:
            del self._open[id(ticket)]

    def close(self) -> None:
        """End the signs."""
        self._signs.close()

    def _beat(self) -> None:
        for ticket, so_far in list(self._open.values()):
            self._store.touch(ticket, so_far())

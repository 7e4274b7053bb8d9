"""Save answers later that the database could not take when they were complete."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError

from app.errors import StorageFailed
from app.services.conversations.rows import Columns
from app.services.conversations.store import ConversationStore, Ticket
from app.stopping import stopping
from app.storage.damaged import set_aside
from app.storage.json_file import write_json
from app.threads import Recurring

log = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two tries
_PATIENCE = 1.0  # seconds that a stop waits for a try that is under way


class LateAnswers:
    """The answers that the database has still to take, each in a file of *folder*.

    So a killed process loses none: any later process with the same folder saves them. An answer whose file
    cannot be written stays in memory. To save an answer twice does no harm: its row takes only the first.
    """

    def __init__(self, store: ConversationStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._waiting: dict[str, Columns] = {}  # the answers of this process, by file name
        self._tries = Recurring("late answers", INTERVAL, self.save)

    def keep(self, ticket: Ticket, answer: Columns) -> bool:
        """Keep *answer* for later, and return whether a file holds it.

        :param answer: the arguments of :meth:`ConversationStore.finish`
        """
        name = f"{ticket.owner}.json"
        kept: Columns = {"ticket": asdict(ticket), "answer": answer}
        self._waiting[name] = kept
        is_written = self._write(name, kept)
        self._tries.start()
        return is_written

    def settle(self, conversation_id: str) -> None:
        """Save the answers that wait for the conversation: its next question must come after them.

        These can be answers of another process, such as one that was stopped while the database was locked.

        :raises StorageFailed: when the database still cannot take them
        """
        for name in self._names():
            kept = self._kept(name)
            if kept and cast("Columns", kept["ticket"]).get("conversation_id") == conversation_id:
                self._finish(name, kept)

    def save(self) -> None:
        """Save the answers that wait, also those that a former process has left."""
        for name in self._names():
            kept = self._kept(name)
            try:
                if kept:
                    self._finish(name, kept)
            except StorageFailed:  # the answer goes on waiting
                if kept and not (self._folder / name).exists():
                    self._write(name, kept)
                if stopping.is_set():  # there is no time to wait for each answer
                    break

    def close(self) -> None:
        """Stop after a last try; what waits then is left to a later process."""
        self._tries.close(_PATIENCE)
        if self._waiting:
            self.save()
        for name, kept in list(self._waiting.items()):
            if not (self._folder / name).exists() and not self._write(name, kept):
                log.error("an answer is lost: neither the database nor the data folder can be written")

    def _finish(self, name: str, kept: Columns) -> None:
        ticket, answer = cast("Any", kept["ticket"]), cast("Any", kept["answer"])
        try:
            self._store.finish(Ticket(**ticket), **answer)
        except (TypeError, ValueError, SQLAlchemyError):  # not an answer of ours: no later try can succeed
            log.exception("a late answer cannot be saved")
            set_aside(self._folder / name)
        else:
            log.info("a late answer is saved")
            with suppress(OSError):  # nobody has written it; or it stays, and saving it again does no harm
                (self._folder / name).unlink()
        self._waiting.pop(name, None)

    def _write(self, name: str, kept: Columns) -> bool:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self._folder / name, kept)
        except OSError as exc:
            log.warning("an answer waits in memory only: %s", exc.strerror)
            return False
        return True

    def _names(self) -> list[str]:
        return sorted({path.name for path in self._folder.glob("*.json")} | set(self._waiting))

    def _kept(self, name: str) -> Columns | None:
        return self._waiting.get(name) or self._read(name)

    def _read(self, name: str) -> Columns | None:
        path = self._folder / name
        try:
            kept: Columns = json.loads(path.read_bytes())
            is_ours = isinstance(kept["ticket"], dict) and isinstance(kept["answer"], dict)
        except OSError:  # another process has just saved it; or it can be read later
            return None
        except (ValueError, RecursionError, TypeError, KeyError):
            is_ours = False
        if is_ours:
            return kept
        set_aside(path)
        return None

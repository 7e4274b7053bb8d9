"""Import conversations in small transactions, between which others can write; they appear all at once."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Select, delete, insert, select, update
from sqlalchemy.orm import Session

from app.errors import StorageFailed
from app.services.conversations import rows
from app.storage.database import Database, is_fresh, utc_now
from app.storage.tables import Conversation, ConversationImport, ConversationMessage

log = logging.getLogger(__name__)

STALE_AFTER = timedelta(minutes=2)
"""An import that has written nothing for this time counts as dead."""

_BATCH = 100_000  # characters that one transaction writes; it takes some tens of milliseconds
_ROW = 400  # characters that a row costs besides its text
_DELETED = 200  # rows that one transaction deletes

_Row = tuple[type[Conversation | ConversationMessage], rows.Columns]


class Imports:
    """Imports conversations, all or none.

    SQLite lets only one transaction write at a time. So an import is many small ones. Their conversations
    carry the import's id, which hides them, until the last transaction removes it from all of them. The rows
    of an import that fails or whose process dies are deleted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, conversations: list[rows.ExportedConversation]) -> list[rows.Summary]:
        """Save exported *conversations* under new ids: all of them, or on an error none."""
        id = uuid.uuid4().hex
        with self._database.session() as session:
            session.add(ConversationImport(id=id))
        saved: list[rows.Summary] = []
        try:
            for batch in _batches(_rows(id, conversations, saved)):
                with self._turn() as session:
                    _write(session, id, batch)
            self._publish(id)
        except BaseException:
            self._give_up(id)
            raise
        return saved

    def clean(self) -> None:
        """Delete the rows of imports whose process died."""
        with self._database.session() as session:
            dead = ~is_fresh(ConversationImport.heartbeat_at, STALE_AFTER)
            session.execute(delete(ConversationImport).where(dead))
        self._delete_hidden()

    def _publish(self, id: str) -> None:
        """Show the conversations of the import."""
        with self._database.session() as session:
            if not session.execute(delete(ConversationImport).where(ConversationImport.id == id)).rowcount:  # type: ignore[attr-defined]
                raise _interrupted()
            mine = update(Conversation).where(Conversation.import_id == id)
            session.execute(mine.values(import_id=None))

    def _give_up(self, id: str) -> None:
        try:
            with self._database.session() as session:
                session.execute(delete(ConversationImport).where(ConversationImport.id == id))
            self._delete_hidden()
        except StorageFailed as exc:  # clean() deletes the rows later
            log.warning("a failed import is deleted later: %s", exc.message)

    def _delete_hidden(self) -> None:
        """Delete the conversations of imports that are over without success."""
        alive = select(ConversationImport.id)
        hidden = select(Conversation.id).where(
            Conversation.import_id.is_not(None), Conversation.import_id.not_in(alive)
        )
        messages = select(ConversationMessage.id).where(ConversationMessage.conversation_id.in_(hidden))
        while self._delete_some(ConversationMessage, messages):
            continue
        while self._delete_some(Conversation, hidden):
            continue

    def _delete_some(self, table: type[Conversation | ConversationMessage], ids: Select[Any]) -> bool:
        with self._turn() as session:
            found = session.scalars(ids.limit(_DELETED)).all()
            session.execute(delete(table).where(table.id.in_(found)))
        return bool(found)

    @contextmanager
    def _turn(self) -> Iterator[Session]:
        """Yield a session; afterwards, leave the database to other writers for the same time."""
        begun = time.monotonic()
        with self._database.session() as session:
            yield session
        if self._database.has_one_writer:
            time.sleep(time.monotonic() - begun)


def _write(session: Session, id: str, batch: list[_Row]) -> None:
    for table in (Conversation, ConversationMessage):  # the messages refer to the conversations
        if found := [row for of, row in batch if of is table]:
            session.execute(insert(table.__table__), found)  # type: ignore[arg-type]
    mine = update(ConversationImport).where(ConversationImport.id == id)
    if not session.execute(mine.values(heartbeat_at=utc_now())).rowcount:  # type: ignore[attr-defined]
        raise _interrupted()


def _rows(
    id: str, conversations: list[rows.ExportedConversation], saved: list[rows.Summary]
) -> Iterator[_Row]:
    """Yield the rows of *conversations*, each before its messages, and add its summary to *saved*."""
    for whole in conversations:
        row = rows.imported(whole)
        saved.append(cast("rows.Summary", {**row, "message_count": len(whole["messages"])}))
        yield Conversation, {**row, "import_id": id}
        for seq, message in enumerate(whole["messages"], 1):
            yield ConversationMessage, rows.imported_message(str(row["id"]), seq, message)


def _batches(found: Iterable[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    size = 0
    for table, row in found:
        batch.append((table, row))
        size += _ROW + len(str(row.get("content") or row.get("system_prompt") or ""))
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _interrupted() -> StorageFailed:
    return StorageFailed(
        "The import stood still for too long and was given up; nothing of it was saved.",
        hint="Send it again.",
        details={"reason": "locked"},
        retry_after=5,
    )

"""Imports: small transactions, which show all conversations at once or none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from app.errors import ConversationNotFound, StorageFailed
from app.services.conversations.imports import STALE_AFTER, Imports
from app.services.conversations.store import ConversationStore
from app.storage.database import Database, utc_now
from app.storage.tables import Base, Conversation, ConversationImport, ConversationMessage

BATCHES = "word " * 60_000  # more characters than one transaction takes


class _Died(BaseException):
    """The process was killed."""


@pytest.fixture
def store(database: Database) -> ConversationStore:
    return ConversationStore(database)


@pytest.fixture
def imports(database: Database) -> Imports:
    return Imports(database)


def _exported(title: str, content: str = "Why?") -> Any:
    message = {"role": "user", "content": content, "data": {}, "status": "complete"}
    nothing = {"error": None, "provider": None, "model": None, "usage": None, "created_at": utc_now()}
    return {"version": 1, "title": title, "messages": [{**message, **nothing}]}


def _rows(database: Database, table: type[Base] = Conversation) -> int:
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def _hidden_id(database: Database) -> str:
    with database.session() as session:
        return (
            session.scalars(select(Conversation.id).where(Conversation.import_id.is_not(None))).first() or ""
        )


class _Stream(list[Any]):
    """A list whose items are made while it is read."""

    def __init__(self, items: Iterator[Any]) -> None:
        super().__init__()
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self._items


def test_others_can_write_during_an_import_and_see_nothing_of_it(
    database: Database, store: ConversationStore, imports: Imports
) -> None:
    def items() -> Iterator[Any]:
        yield _exported("First", BATCHES)
        id = _hidden_id(database)
        assert id
        assert store.create(title="Of another")["title"] == "Of another"
        assert [one["title"] for one in store.all(limit=9, offset=0)["conversations"]] == ["Of another"]
        assert store.all(limit=9, offset=0, query="word")["total"] == 0
        assert store.all(limit=9, offset=0, query="First")["total"] == 0
        hidden = (
            store.export,
            store.turns,
            store.delete,
            lambda id: store.begin(id, [], "", ""),
            store.update,
        )
        for use in hidden:
            with pytest.raises(ConversationNotFound):
                use(id)
        imports.clean()  # the import is alive
        yield _exported("Last")

    saved = imports.save(_Stream(items()))

    assert [one["title"] for one in saved] == ["First", "Last"]
    assert store.all(limit=9, offset=0)["total"] == 3
    assert store.all(limit=9, offset=0, query="word")["total"] == 1
    assert store.get(saved[0]["id"], limit=1)["messages"][0]["content"] == BATCHES


def test_summary_of_an_import_is_that_of_its_conversation(store: ConversationStore, imports: Imports) -> None:
    (saved,) = imports.save([_exported("One")])

    (listed,) = store.all(limit=9, offset=0)["conversations"]
    assert saved == listed


def test_import_that_fails_leaves_nothing(database: Database, imports: Imports) -> None:
    faulty = {**_exported("Faulty"), "messages": [{"role": "user"}]}

    with pytest.raises(KeyError):
        imports.save([_exported("Good", BATCHES), faulty])

    assert [_rows(database, table) for table in (Conversation, ConversationMessage, ConversationImport)] == [
        0,
        0,
        0,
    ]


def test_import_whose_process_died_is_deleted_when_its_time_is_over(
    database: Database, store: ConversationStore, imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def items() -> Iterator[Any]:
        yield _exported("First", BATCHES)
        yield _exported("Second", BATCHES)
        raise _Died

    monkeypatch.setattr(Imports, "_give_up", lambda *_: None)  # a killed process cannot
    store.create(title="Another")
    with pytest.raises(_Died):
        imports.save(_Stream(items()))
    left = _rows(database)

    imports.clean()
    soon = _rows(database)
    with database.session() as session:
        session.execute(update(ConversationImport).values(heartbeat_at=utc_now() - 2 * STALE_AFTER))
    imports.clean()

    assert (left, soon) == (3, 3)
    assert [_rows(database, table) for table in (Conversation, ConversationMessage, ConversationImport)] == [
        1,
        0,
        0,
    ]


@pytest.mark.parametrize("shift", [-2 * STALE_AFTER, timedelta(days=1)])
def test_import_that_was_taken_for_dead_says_so_and_leaves_nothing(
    database: Database, imports: Imports, shift: timedelta
) -> None:
    def items() -> Iterator[Any]:
        yield _exported("First", BATCHES)
        with database.session() as session:
            session.execute(update(ConversationImport).values(heartbeat_at=utc_now() + shift))
        imports.clean()
        yield _exported("Second")

    with pytest.raises(StorageFailed):
        imports.save(_Stream(items()))

    assert _rows(database) == 0


def test_import_that_the_database_interrupts_is_deleted_later(database: Database, imports: Imports) -> None:
    def items() -> Iterator[Any]:
        yield _exported("First", BATCHES)
        with database.session() as session:
            session.execute(text("alter table conversation_messages rename to elsewhere"))
        yield _exported("Second", BATCHES)

    with pytest.raises(StorageFailed):
        imports.save(_Stream(items()))
    with database.session() as session:
        session.execute(text("alter table elsewhere rename to conversation_messages"))
    imports.clean()

    assert [_rows(database, table) for table in (Conversation, ConversationMessage, ConversationImport)] == [
        0,
        0,
        0,
    ]

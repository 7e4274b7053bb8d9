"""What the failures of the database become, made with a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.config import Config
from app.errors import StorageFailed
from app.services.conversations.store import ConversationStore
from app.storage import database as storage
from app.storage.database import Base, Database, Occasion, utc_now
from tests.postgres import WANTED

sqlite_only = pytest.mark.skipif(WANTED, reason="needs SQLite")
postgresql_only = pytest.mark.skipif(not WANTED, reason="needs PostgreSQL")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 1)


def _failure(
    database: Database, do: Callable[[ConversationStore], object] = ConversationStore.create
) -> StorageFailed:
    with pytest.raises(StorageFailed) as caught:
        do(ConversationStore(database))
    assert "select" not in caught.value.message.lower()
    assert "insert" not in caught.value.message.lower()
    return caught.value


def _outcome(error: StorageFailed) -> tuple[int, str, bool]:
    return int(error.status), error.details["reason"], error.retry_after is not None


@sqlite_only
def test_locked_database_is_503(database: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "backend.db")) as other:
        other.execute("begin immediate")

        assert _outcome(_failure(database)) == (503, "locked", True)

    assert ConversationStore(database).create()["id"]


@sqlite_only
def test_full_database_is_507(database: Database) -> None:
    with database.session() as session:
        pages = session.scalar(text("pragma page_count"))
        session.execute(text(f"pragma max_page_count = {pages}"))  # holds for the connection in the pool

    error = _failure(database, lambda store: [store.create(system_prompt="x" * 100_000) for _ in range(9)])

    assert _outcome(error) == (507, "full", False)


@sqlite_only
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"no database at all" * 1000, id="another-file"),
        pytest.param(b"SQLite format 3\0" + b"\xff" * 100_000, id="overwritten"),
    ],
)
def test_damaged_database_is_503(database: Database, tmp_path: Path, damage: bytes) -> None:
    database.close()
    (tmp_path / "backend.db").write_bytes(damage)

    assert _outcome(_failure(database, lambda store: store.all(limit=1, offset=0))) == (503, "damaged", True)


@sqlite_only
def test_database_that_is_read_only_is_503(database: Database) -> None:
    with database.session() as session:
        session.execute(text("pragma query_only = on"))

    assert _outcome(_failure(database)) == (503, "read_only", True)


@sqlite_only
def test_database_that_cannot_be_opened_is_503(database: Database, tmp_path: Path) -> None:
    database.close()
    for path in tmp_path.glob("backend.db*"):
        path.unlink()
    (tmp_path / "backend.db").mkdir()

    assert _outcome(_failure(database)) == (503, "denied", True)


def test_database_without_its_tables_is_503(database: Database) -> None:
    with database.session() as session:
        session.execute(text("alter table conversations rename to elsewhere"))

    assert _outcome(_failure(database)) == (503, "damaged", True)


def test_no_free_connection_is_503(database: Database) -> None:
    with ExitStack() as taken:
        for _ in range(120):
            taken.enter_context(database.engine.connect())

        assert _outcome(_failure(database)) == (503, "busy", True)


@postgresql_only
def test_table_that_another_program_locks_is_503(database: Database) -> None:
    with database.engine.connect() as other:
        other.execute(text("lock table conversations in access exclusive mode"))

        assert _outcome(_failure(database)) == (503, "locked", True)


@postgresql_only
def test_postgresql_that_ends_the_connection_in_mid_session_is_503(database: Database) -> None:
    def end_itself(_: ConversationStore) -> None:
        with database.session() as session, database.engine.connect() as other:
            pid = session.scalar(text("select pg_backend_pid()"))
            other.execute(text(f"select pg_terminate_backend({pid})"))
            session.execute(text("select 1"))

    assert _outcome(_failure(database, end_itself)) == (503, "gone", True)
    assert ConversationStore(database).create()["id"]


@postgresql_only
def test_read_only_postgresql_is_503(database: Database) -> None:
    with database.session() as session:
        name = session.scalar(text("select current_database()"))
        session.execute(text(f"alter database {name} set default_transaction_read_only = on"))
    database.close()

    assert _outcome(_failure(database)) == (503, "read_only", True)


def test_server_that_does_not_answer_is_503_and_keeps_the_password(tmp_path: Path) -> None:
    database = Database("postgresql://someone:a-secret@127.0.0.1:1/none", tmp_path)

    error = _failure(database)

    assert _outcome(error) == (503, "gone", True)
    assert "a-secret" not in str(error.body("r"))


def test_violated_constraint_reaches_the_caller(database: Database) -> None:
    with database.session() as session:
        session.add(Occasion(name="a", at=utc_now()))

    with pytest.raises(IntegrityError), database.session() as session:
        session.execute(text("insert into occasions (name, at) select name, at from occasions"))


def test_fault_of_the_program_stays_one(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.session():
        raise ZeroDivisionError


@sqlite_only
def test_locked_database_answers_503_with_retry_after(client: FlaskClient, config: Config) -> None:
    with closing(sqlite3.connect(config.data_dir / "backend.db")) as other:
        other.execute("begin immediate")

        response = client.post("/api/conversations", json={})

    assert (response.status_code, response.json["error_type"]) == (503, "storage_failed")  # type: ignore[index]
    assert int(response.headers["Retry-After"]) > 0
    assert response.json["hint"]  # type: ignore[index]


def test_no_view_answers_500_without_the_tables(app: Flask, client: FlaskClient) -> None:
    with app.extensions["services"].database.session() as session:
        for table in Base.metadata.tables:
            session.execute(text(f"alter table {table} rename to lost_{table}"))
    views = [
        (method, re.sub("<.*?>", "x", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "DELETE"}
        if rule.rule.startswith("/api/")
    ]

    statuses = {view: client.open(view[1], method=view[0]).status_code for view in views}

    assert [view for view, status in statuses.items() if status == 500] == []
    assert set(statuses.values()) >= {200, 503}

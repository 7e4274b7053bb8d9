"""The database and its migrations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, Table, insert, inspect, text

from app.config import ROOT
from app.services.models.versions import VersionStore
from app.services.pulls.store import PullStore
from app.storage.database import REVISION, Database
from tests.postgres import database_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(database_url(tmp_path), tmp_path)
    yield database
    database.close()


OLD_PULL = {
    "id": "1",
    "model": "a:1",
    "key": "registry.ollama.ai/library/a:1",
    "insecure": False,
    "status": "paused",
    "wanted": "paused",
    "completed": 5,
    "bytes_per_second": 0.0,
    "layers": {},
    "status_log": [],
    "attempts": 1,
    "seq": 1,
    "owner": "",
    "heartbeat_at": datetime(2026, 11, 22),  # noqa: DTZ001
    "created_at": datetime(2026, 11, 22),  # noqa: DTZ001
    "updated_at": datetime(2026, 11, 22),  # noqa: DTZ001
}


def migrate_to(database: Database, revision: str) -> None:
    with database.engine.begin() as connection:
        command.upgrade(config_for(connection), revision)


def config_for(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "app" / "storage" / "migrations"))
    config.attributes["connection"] = connection
    return config


def revision_of(database: Database) -> object:
    with database.engine.connect() as connection:
        return connection.execute(text("select version_num from alembic_version")).scalar()


def test_database_of_the_first_release_comes_up_with_its_rows(database: Database) -> None:
    migrate_to(database, "0001")
    with database.engine.begin() as connection:
        pulls = Table("pulls", MetaData(), autoload_with=connection)
        connection.execute(insert(pulls).values(OLD_PULL))

    database.migrate()

    assert revision_of(database) == REVISION
    assert PullStore(database).get("1").model == "a:1"
    assert PullStore(database).get("1").anytime is False
    assert VersionStore(database).all() == []


def test_newest_migration_is_the_one_the_program_wants(database: Database) -> None:
    migrate_to(database, "head")

    assert revision_of(database) == REVISION


def test_tables_of_the_migrations_are_those_of_the_program(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from app.storage.database import Base

    def is_table(name: str | None, *_: object) -> bool:
        return not (name or "").startswith("conversation_search")  # indexes that no class can declare

    database.migrate()

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_table})
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_can_be_taken_back(database: Database) -> None:
    migrate_to(database, "head")

    with database.engine.begin() as connection:
        command.downgrade(config_for(connection), "0004")

    with database.engine.connect() as connection:
        tables = inspect(connection).get_table_names()
    assert "pulls" in tables
    assert not [name for name in tables if name.startswith(("conversation", "calls"))]

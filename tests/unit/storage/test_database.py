"""The database: migrations, and what is written beside the calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, Table, insert, inspect, text

from app.config import ROOT
from app.services.models import uses as model_uses
from app.services.models.uses import ModelUses
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


def test_use_of_a_model_is_written_once_a_minute_whatever_its_spelling(database: Database) -> None:
    database.migrate()
    uses = ModelUses(database)

    for model in ("Llama3.2", "llama3.2:latest", "registry.ollama.ai/library/llama3.2", "not a name"):
        uses.touch("ollama", model)
    uses.close()

    assert list(uses.all("ollama")) == ["registry.ollama.ai/library/llama3.2:latest"]
    assert uses.all("other") == {}


def test_use_of_a_model_is_written_over_the_one_before(database: Database) -> None:
    database.migrate()
    for _ in range(2):  # another process knows nothing of the first one's
        uses = ModelUses(database)
        uses.touch("ollama", "a:1")
        uses.close()

    assert len(uses.all("ollama")) == 1


def test_of_ever_new_names_only_the_last_ones_are_remembered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.migrate()
    monkeypatch.setattr(model_uses, "_REMEMBERED", 3)
    uses = ModelUses(database)

    for number in range(10):
        uses.touch("ollama", f"a:{number}")
    uses.close()

    assert [key.rpartition(":")[2] for _, key in uses._written] == ["7", "8", "9"]
    assert len(uses.all("ollama")) == 10


def test_use_that_cannot_be_written_is_only_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    uses = ModelUses(database)  # has no tables yet

    uses.touch("ollama", "a:1")
    uses.close()

    assert "could not be kept" in caplog.text

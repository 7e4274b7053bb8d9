"""The database: its sessions and its migrations. The tables are in :mod:`app.storage.tables`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.stopping import stopping
from app.storage.failures import storage_error, storage_failed
from app.storage.folder import PRIVATE, make_private
from app.storage.tables import (
    ACTIVE,
    FINISHED,
    Base,
    ChatStop,
    IdempotencyKey,
    KeptVersion,
    ModelUse,
    Occasion,
    Pull,
    PullEvent,
    is_fresh,
    utc_now,
)

__all__ = [
    "ACTIVE",
    "FINISHED",
    "REVISION",
    "Base",
    "ChatStop",
    "Database",
    "IdempotencyKey",
    "KeptVersion",
    "ModelUse",
    "Occasion",
    "Pull",
    "PullEvent",
    "is_fresh",
    "utc_now",
]

PATIENCE = 10
"""How many seconds a statement waits for a lock, and a session for a connection."""

_LAST_PATIENCE = 1
"""The same in seconds, for a session that begins while the process is being stopped."""

REVISION = "0006"
"""The newest migration. A database with this revision needs no Alembic, which is slow to import."""


_REVISIONS = [f"{number:04}" for number in range(1, int(REVISION) + 1)]


class Database:
    """The database at *url*; if *url* is empty, the SQLite file `backend.db` in *data_dir*."""

    def __init__(self, url: str, data_dir: Path) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = data_dir
        self._lock_file = data_dir / "backend.db.lock"
        self.engine = _make_engine(url or f"sqlite:///{data_dir / 'backend.db'}")
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @property
    def has_one_writer(self) -> bool:
        """Whether only one transaction can write at a time, as in SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session; commit at the end, roll back on an exception.

        :raises StorageFailed: when the database fails; a violated constraint raises ``IntegrityError``
        """
        with self._failures(), self._sessions.begin() as session:
            if stopping.is_set():
                self._hurry(session)
            yield session

    @contextmanager
    def writing(self, lock: int | None = None) -> Iterator[Session]:
        """Yield a session for changes that depend on rows that it reads first.

        SQLite cannot lock rows, so there no other session can write until this one ends.

        :param lock: the number of an advisory lock to take on PostgreSQL; None where the caller locks rows
        """
        with self.session() as session:
            if self.has_one_writer:
                session.execute(text("BEGIN IMMEDIATE"))
            elif lock is not None:
                session.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": lock})
            yield session

    def migrate(self) -> None:
        """Migrate the tables to :data:`REVISION`; only one process does so at a time.

        :raises StorageFailed: when the database fails, or was made by a newer release
        """
        with self._failures():
            if self._revision() == REVISION:
                return
            with FileLock(self._lock_file, mode=PRIVATE):
                if self._revision() != REVISION:
                    _upgrade(self.engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _hurry(self, session: Session) -> None:
        if self.has_one_writer:
            session.execute(text(f"PRAGMA busy_timeout = {_LAST_PATIENCE * 1000}"))
        else:
            session.execute(text(f"set local lock_timeout = '{_LAST_PATIENCE}s'"))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise :class:`StorageFailed` for what the database raises in this block."""
        try:
            yield
        except SQLAlchemyError as exc:
            failure = storage_failed(exc, self._folder)
            if failure is None:
                raise
            raise failure from exc

    def _revision(self) -> str | None:
        """Return the revision of the tables; None for a new database."""
        with self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found = connection.execute(text("select version_num from alembic_version")).scalar()
        if found is not None and found not in _REVISIONS:
            raise storage_error("newer")
        return found if isinstance(found, str) else None


def upsert(session: Session, table: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert *rows*; if a row with the same primary key exists, update its other columns.

    This is one statement, because other processes may write the same rows at the same time.
    """
    # SQLAlchemy has this statement only in the modules of the dialects.
    dialect = import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}")
    statement = dialect.insert(table).values(rows)
    primary = [column.name for column in table.__table__.primary_key]
    others = {column.name: column for column in statement.excluded if column.name not in primary}
    session.execute(statement.on_conflict_do_update(index_elements=primary, set_=others))


def _make_engine(url: str) -> Engine:
    try:
        return _engine_of(make_url(url))
    except (ArgumentError, ValueError) as exc:
        raise storage_error("address") from exc
    except ImportError as exc:
        raise storage_error("driver") from exc


def _engine_of(parsed: URL) -> Engine:
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {"pool_size": 20, "max_overflow": 100, "pool_timeout": PATIENCE}
    options["hide_parameters"] = True  # a logged exception must not show what people write
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise storage_error("address")
    if parsed.get_backend_name() != "sqlite":
        limits = {"connect_timeout": PATIENCE, "tcp_user_timeout": PATIENCE * 1000}
        unset = {name: limit for name, limit in limits.items() if name not in parsed.query}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=unset, **options)
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    if parsed.database and not parsed.database.startswith((":", "file:")):
        make_private(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": PATIENCE}, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Set up a connection to PostgreSQL, which waits for locks without end if nothing else is set."""
    connection.execute(f"set lock_timeout = '{PATIENCE}s'")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Set up a connection to SQLite."""
    # SQLite's own lower() changes only ASCII letters.
    connection.create_function("casefold", 1, str.casefold, deterministic=True)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _upgrade(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        # The lock file stops only processes on this machine; another machine may migrate at the same time.
        if engine.dialect.name == "postgresql":
            connection.execute(text("set local lock_timeout = 0"))  # its migration may take long
            connection.execute(text("select pg_advisory_xact_lock(7301143)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

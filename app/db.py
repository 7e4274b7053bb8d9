"""The database: its tables, its sessions, its migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    String,
    create_engine,
    event,
    false,
    text,
)
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.types import TypeDecorator

REVISION = "0004"
"""The newest migration; where the database has it, Alembic is not even imported."""

ACTIVE = ("queued", "running", "paused")
FINISHED = ("done", "failed", "cancelled")


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone; SQLite keeps none, so it is kept in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: object) -> datetime | None:
        """Return *value* in UTC, without its zone."""
        return value and value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: object) -> datetime | None:
        """Return *value* with its zone."""
        return value and value.replace(tzinfo=timezone.utc)


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(timezone.utc)


class Base(DeclarativeBase):
    """The tables."""

    type_annotation_map: ClassVar = {dict[str, Any]: JSON, list[dict[str, Any]]: JSON, datetime: UtcTime}


class Pull(Base):
    """A download of a model. `wanted` is what the user asks of it, `status` what it is."""

    __tablename__ = "pulls"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(700))
    key: Mapped[str] = mapped_column(String(700))  # the full name in lower case: names ignore case
    insecure: Mapped[bool] = mapped_column(default=False)
    anytime: Mapped[bool] = mapped_column(default=False, server_default=false())  # also out of the window
    status: Mapped[str] = mapped_column(String(16), default="queued")
    wanted: Mapped[str] = mapped_column(String(16), default="running")
    completed: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int | None] = mapped_column(BigInteger)
    percent: Mapped[float | None] = mapped_column(
        Double
    )  # kept, for it never falls although the total may grow
    bytes_per_second: Mapped[float] = mapped_column(Double, default=0.0)
    layers: Mapped[dict[str, Any]] = mapped_column(default=dict)  # bytes that are here, by digest
    status_log: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0)
    seq: Mapped[int] = mapped_column(default=0)  # of the newest event
    owner: Mapped[str] = mapped_column(String(32), default="")
    heartbeat_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        Index(
            "one_active_pull_per_model",
            "key",
            unique=True,
            sqlite_where=text("status in ('queued', 'running', 'paused')"),
            postgresql_where=text("status in ('queued', 'running', 'paused')"),
        ),
    )


class PullEvent(Base):
    """What a watcher of a pull is told; kept so that one who comes back misses nothing."""

    __tablename__ = "pull_events"

    pull_id: Mapped[str] = mapped_column(ForeignKey("pulls.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]]


class KeptVersion(Base):
    """A version of a model, kept under another name so that one can go back to it.

    It is `pending` while the update it was made for runs, then `kept`.
    """

    __tablename__ = "kept_versions"

    name: Mapped[str] = mapped_column(String(700), primary_key=True)
    model: Mapped[str] = mapped_column(String(700))
    key: Mapped[str] = mapped_column(String(700), index=True)  # of the model
    digest: Mapped[str] = mapped_column(String(71))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    pull_id: Mapped[str] = mapped_column(String(32), default="")
    automatic: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ModelUse(Base):
    """When a model was last used through this program."""

    __tablename__ = "model_uses"

    provider: Mapped[str] = mapped_column(String(80), primary_key=True)
    key: Mapped[str] = mapped_column(String(700), primary_key=True)
    used_at: Mapped[datetime] = mapped_column(default=utc_now)


class Occasion(Base):
    """The last time that something recurring was done, by whichever process came first."""

    __tablename__ = "occasions"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime]


class IdempotencyKey(Base):
    """A request that a client may send again without its being done twice; `answer` once there is one."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # of the request: the same key, the same request
    answer: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ChatStop(Base):
    """A wish that a running answer be stopped, for whichever process gives it; `is_done` once it did."""

    __tablename__ = "chat_stops"

    request_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    is_done: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Database:
    """The database at *url*, by default the SQLite file `backend.db` in *data_dir*."""

    def __init__(self, url: str, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._lock_file = data_dir / "backend.db.lock"
        self.engine = _make_engine(url or f"sqlite:///{data_dir / 'backend.db'}")
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session; commit at the end, roll back on an exception."""
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def writing(self, lock: int | None = None) -> Iterator[Session]:
        """Yield a session for changes that depend on what it reads first.

        SQLite knows no locked rows: there, nobody else writes until the session's end.

        :param lock: on PostgreSQL, the number of what only one session has at a time, beside its rows
        """
        with self.session() as session:
            if self.engine.dialect.name == "sqlite":
                session.execute(text("BEGIN IMMEDIATE"))
            elif lock is not None:
                session.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": lock})
            yield session

    def migrate(self) -> None:
        """Bring the tables up to this release."""
        if self._revision() == REVISION:
            return
        with FileLock(self._lock_file):
            if self._revision() != REVISION:
                _upgrade(self.engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _revision(self) -> str | None:
        with self.engine.connect() as connection:
            try:
                found = connection.execute(text("select version_num from alembic_version")).scalar()
            except DatabaseError:  # no such table: the database is new
                return None
        return found if isinstance(found, str) else None


def _make_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, pool_size=20, max_overflow=100)
    engine = create_engine(parsed, connect_args={"timeout": 30}, pool_size=20, max_overflow=100)
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _upgrade(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # other machines may start at the same time
            connection.execute(text("select pg_advisory_xact_lock(7301143)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

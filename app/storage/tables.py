"""The tables of the database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.schemas.pulls import PullPart

ACTIVE = ("queued", "running", "paused")
FINISHED = ("done", "failed", "cancelled")


class UtcTime(TypeDecorator[datetime]):
    """A time with a time zone, stored in UTC without it: SQLite stores no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: object) -> datetime | None:
        """Return *value* in UTC, without a time zone."""
        return value and value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: object) -> datetime | None:
        """Return *value* with the time zone UTC."""
        return value and value.replace(tzinfo=timezone.utc)


def utc_now() -> datetime:
    """Return the current time in UTC, with its time zone."""
    return datetime.now(timezone.utc)


def is_fresh(at: Any, age: timedelta) -> Any:
    """Tell whether the time *at* is at most *age* old; as SQL, when *at* is a column.

    A time in the future is fresh only as far as the clocks of two machines may differ: when the clock is set
    back, what was written before must not count as fresh until the old time is reached again.
    """
    now = utc_now()
    return (at >= now - age) & (at <= now + min(age, CLOCK_TOLERANCE))


CLOCK_TOLERANCE = timedelta(seconds=10)
"""How far the clocks of machines that share a database may differ."""


class Base(DeclarativeBase):
    """The base of all tables."""

    type_annotation_map: ClassVar = {dict[str, Any]: JSON, datetime: UtcTime}


class Pull(Base):
    """A download of a model.

    `status` is its present state, `wanted` the state that the user asks for: the worker changes the first to
    the second.
    """

    __tablename__ = "pulls"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(700))
    key: Mapped[str] = mapped_column(String(700))  # the model's full name in lower case: names ignore case
    insecure: Mapped[bool] = mapped_column(default=False)
    # Whether the pull may run outside of the window for pulls.
    anytime: Mapped[bool] = mapped_column(default=False, server_default=false())
    status: Mapped[str] = mapped_column(String(16), default="queued")
    wanted: Mapped[str] = mapped_column(String(16), default="running")
    completed: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int | None] = mapped_column(BigInteger)
    percent: Mapped[float | None] = mapped_column(Double)  # never falls, although the total may grow
    bytes_per_second: Mapped[float] = mapped_column(Double, default=0.0)
    layers: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)  # downloaded bytes by digest
    status_log: Mapped[list[PullPart]] = mapped_column(JSON, default=list)
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0)
    seq: Mapped[int] = mapped_column(default=0)  # the number of the newest event
    owner: Mapped[str] = mapped_column(String(32), default="")  # the worker that runs the pull
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
    """An event of a pull, stored so that a client that reconnects misses no event."""

    __tablename__ = "pull_events"

    pull_id: Mapped[str] = mapped_column(ForeignKey("pulls.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]]


class KeptVersion(Base):
    """A version of a model that an update replaces, kept under another name for a rollback.

    `status` is `pending` while the update runs, then `kept`.
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
    """The time of a named occasion, such as the last time that a process claimed some recurring work."""

    __tablename__ = "occasions"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime]


class IdempotencyKey(Base):
    """A request with an `Idempotency-Key`, and its `answer` after the request is done."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # of the body: a key must not come with another body
    answer: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ChatStop(Base):
    """A request to stop an answer. The process that runs the answer sets `is_done` after stopping it."""

    __tablename__ = "chat_stops"

    request_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    is_done: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Conversation(Base):
    """A conversation of a user with a model; a null column means that the setting holds."""

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    title: Mapped[str] = mapped_column(String(200), default="")  # empty until the first message
    system_prompt: Mapped[str | None] = mapped_column(Text)
    provider: Mapped[str | None] = mapped_column(String(80))
    model: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    import_id: Mapped[str | None] = mapped_column(String(32))  # hides it until its import is complete

    __table_args__ = (
        Index(
            "hidden_conversations",
            "import_id",
            sqlite_where=text("import_id is not null"),
            postgresql_where=text("import_id is not null"),
        ),
    )


class ConversationImport(Base):
    """An import of conversations that is under way."""

    __tablename__ = "conversation_imports"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    heartbeat_at: Mapped[datetime] = mapped_column(default=utc_now)


class ConversationMessage(Base):
    """A message of a conversation; `owner` is the process that runs a `pending` answer."""

    __tablename__ = "conversation_messages"

    id: Mapped[int] = mapped_column(primary_key=True)  # the search index refers to it
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    seq: Mapped[int]  # from 1, without gaps
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text, default="")
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)  # images, thinking, tool_calls ...
    status: Mapped[str] = mapped_column(String(16), default="complete")
    error: Mapped[dict[str, Any] | None]
    provider: Mapped[str | None] = mapped_column(String(80))
    model: Mapped[str | None] = mapped_column(Text)
    usage: Mapped[dict[str, Any] | None]
    owner: Mapped[str] = mapped_column(String(32), default="")
    heartbeat_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (UniqueConstraint("conversation_id", "seq", name="one_message_per_seq"),)


class CallRow(Base):
    """A finished call to a provider."""

    __tablename__ = "calls"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    provider: Mapped[str] = mapped_column(String(80))
    model: Mapped[str] = mapped_column(Text)
    endpoint: Mapped[str] = mapped_column(String(80))
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    estimated: Mapped[bool]
    latency: Mapped[float] = mapped_column(Double)  # seconds, like the next and load_time
    time_to_first_token: Mapped[float | None] = mapped_column(Double)
    tokens_per_second: Mapped[float | None] = mapped_column(Double)
    load_time: Mapped[float | None] = mapped_column(Double)
    outcome: Mapped[str] = mapped_column(String(64))
    fallback: Mapped[bool]
    streamed: Mapped[bool]
    request_id: Mapped[str] = mapped_column(String(64))

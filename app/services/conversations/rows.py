"""Turn conversations and messages into rows of the database, and rows into answers of the API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import ConversationNotFound
from app.schemas.chat_results import Usage
from app.schemas.messages import Message
from app.storage.tables import Conversation, ConversationMessage, is_fresh, utc_now

Columns = dict[str, object]
"""The values of a row by column name."""


class ConversationValues(TypedDict):
    """The columns of a conversation."""

    title: str
    system_prompt: str | None
    provider: str | None
    model: str | None
    created_at: datetime
    updated_at: datetime


class Summary(ConversationValues):
    """A conversation in an answer of the API, without its messages."""

    id: str
    message_count: int


class KeptMessage(TypedDict):
    """A message in an export; ``data`` holds images, tool calls, thinking and the finish reason."""

    role: str
    content: str
    data: Columns
    status: str
    error: Columns | None
    provider: str | None
    model: str | None
    usage: Usage | None
    created_at: datetime


class ShownMessage(KeptMessage):
    """A message in an answer of the API."""

    seq: int


class WholeConversation(Summary):
    """A conversation in an answer of the API, with some of its messages."""

    messages: list[ShownMessage]
    has_more: bool


class ExportedConversation(ConversationValues):
    """A conversation in an export."""

    version: int
    messages: list[KeptMessage]


class Turn(Message, total=False):
    """A message for a provider, with its status, number and finish reason, which are not sent."""

    status: str
    seq: int
    finish_reason: str


STALE_AFTER = timedelta(seconds=30)
"""An answer without a heartbeat for this time counts as cut off: its process died.

The process of an answer writes heartbeats into the answer's row, so that any other process, on any machine,
can tell from the row alone. Six heartbeats must be missing: a busy machine is not a dead one. The clocks of
the machines that share a database must agree to a few seconds.
"""

MAX_TITLE = 60  # characters of a title that is made from a message
_TITLE_FROM = 1000  # characters of the message, which may be long


def summary(conversation: Conversation, count: int) -> Summary:
    """Return a conversation with *count* messages, but without these, for an answer of the API."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "system_prompt": conversation.system_prompt,
        "provider": conversation.provider,
        "model": conversation.model,
        "created_at": conversation.created_at,
        "updated_at": conversation.updated_at,
        "message_count": count,
    }


def shown(row: ConversationMessage) -> ShownMessage:
    """Return a message for an answer of the API."""
    return {
        "role": row.role,
        "content": row.content,
        "data": row.data,
        "status": status_of(row),
        "seq": row.seq,
        "error": row.error,
        "provider": row.provider,
        "model": row.model,
        "usage": cast("Usage | None", row.usage),
        "created_at": row.created_at,
    }


def as_turn(row: ConversationMessage) -> Turn:
    """Return a message for a provider, with its status and number."""
    told = {"role": row.role, "content": row.content, "status": status_of(row), "seq": row.seq}
    return cast("Turn", {**row.data, **told})


def status_of(row: ConversationMessage) -> str:
    """Return the status of a message; `cut` for an unfinished one without a recent heartbeat."""
    is_lost = row.status == "pending" and not is_fresh(row.heartbeat_at, STALE_AFTER)
    return "cut" if is_lost else row.status


def get(session: Session, id: str, *, lock: bool = False) -> Conversation:
    """Return the row of a conversation.

    :raises ConversationNotFound: when no conversation has that id
    """
    conversation = session.get(Conversation, id, with_for_update=lock or None)
    if conversation is None or conversation.import_id is not None:
        raise not_found(id)
    return conversation


def not_found(id: str) -> ConversationNotFound:
    """Return the error for an unknown *id*."""
    return ConversationNotFound(
        f"There is no conversation '{id[:64]}'.",
        hint="GET /api/conversations lists them.",
        details={"conversation_id": id[:64]},
    )


def counts(session: Session, ids: list[str]) -> dict[str, int]:
    """Return the number of messages of each conversation in *ids*; one without messages is absent."""
    column = ConversationMessage.conversation_id
    newest = func.max(ConversationMessage.seq)  # the numbers begin with 1 and have no gaps
    rows = session.execute(select(column, newest).where(column.in_(ids)).group_by(column))
    return {row[0]: row[1] for row in rows}


def imported(whole: ExportedConversation) -> Columns:
    """Return the row of an exported conversation, under a new id."""
    now = utc_now()
    names = ("title", "system_prompt", "provider", "model")
    return {
        "id": uuid.uuid4().hex,
        **stored_values({name: cast("str | None", whole.get(name)) for name in names}),
        "title": storable(whole.get("title") or "") or title_of(whole["messages"]),
        "created_at": whole.get("created_at") or now,
        "updated_at": whole.get("updated_at") or now,
    }


def imported_message(conversation_id: str, seq: int, message: KeptMessage) -> Columns:
    """Return the row of an exported message; an answer that was unfinished then becomes `cut`."""
    return {
        **message,
        **stored_content(message["content"], message["data"]),
        "conversation_id": conversation_id,
        "seq": seq,
        "status": "cut" if message["status"] == "pending" else message["status"],
    }


def stored_values(values: Mapping[str, str | None]) -> Columns:
    """Return the *values* of a conversation, with :func:`storable` text."""
    return {name: value and storable(value) for name, value in values.items()}


def stored_content(content: str, data: Mapping[str, object]) -> Columns:
    """Return the *content* and *data* of a message, with :func:`storable` text."""
    # NaN and Infinity become None: JSON does not have them, and PostgreSQL refuses them.
    plain = json.loads(storable(json.dumps(data, ensure_ascii=False)), parse_constant=lambda _: None)
    return {"content": storable(content), "data": plain}


def title_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a title: the first line of the user's first message with text, shortened at a space."""
    said = (m.get("content") for m in messages if m["role"] == "user")
    text = next((text for text in said if isinstance(text, str) and text.strip()), "")
    lines = text.lstrip()[:_TITLE_FROM].splitlines()
    title = storable(" ".join("".join(lines[:1]).split()))
    if len(title) <= MAX_TITLE:
        return title
    cut = title[:MAX_TITLE]
    return f"{cut.rsplit(' ', 1)[0] if ' ' in cut else cut[:-1]}…"


def storable(text: str) -> str:
    """Return *text* without NUL and lone surrogates, which databases refuse."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

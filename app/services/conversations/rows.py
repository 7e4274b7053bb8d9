"""How a conversation and its messages become rows, and rows what is answered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy import insert as sql_insert
from sqlalchemy.orm import Session

from app.errors import ConversationNotFound
from app.schemas.messages import Message
from app.storage.tables import Conversation, ConversationMessage, utc_now

Json = dict[str, Any]


class Turn(Message, total=False):
    """A message as a provider is told it, with what is kept beside it."""

    status: str
    seq: int
    finish_reason: str


STALE_AFTER = timedelta(seconds=30)
"""An answer whose maker was silent for so long was cut: its process died.

The process that makes an answer says in its row that it lives; any other process, on any machine, can tell
from the row alone. Six signs in a row must be missing, so that a busy machine is not taken for a dead one.
The clocks of the machines that share a database must agree to a few seconds.
"""

MAX_TITLE = 60  # characters of a title that is made here

_SHOWN = ("role", "content", "status", "seq", "error", "provider", "model", "usage", "created_at")


def summary(conversation: Conversation, count: int) -> Json:
    """Return a conversation as it is answered, without its *count* messages."""
    names = ("id", "title", "system_prompt", "provider", "model", "created_at", "updated_at")
    return {**{name: getattr(conversation, name) for name in names}, "message_count": count}


def shown(row: ConversationMessage) -> Json:
    """Return a message as it is answered."""
    return {**{name: getattr(row, name) for name in _SHOWN}, "data": row.data, "status": status_of(row)}


def as_turn(row: ConversationMessage) -> Turn:
    """Return a message as a provider is told it, with its status and number."""
    told = {"role": row.role, "content": row.content, "status": status_of(row), "seq": row.seq}
    return cast("Turn", {**row.data, **told})


def status_of(row: ConversationMessage) -> str:
    """Return the status of a message; `cut` for one whose maker died."""
    is_lost = row.status == "pending" and row.heartbeat_at < utc_now() - STALE_AFTER
    return "cut" if is_lost else row.status


def get(session: Session, id: str, *, lock: bool = False) -> Conversation:
    """Return the row of a conversation.

    :raises ConversationNotFound: when there is none of that id
    """
    conversation = session.get(Conversation, id, with_for_update=lock or None)
    if conversation is None:
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
    """Return the number of messages of each conversation in *ids* that has some."""
    column = ConversationMessage.conversation_id
    newest = func.max(ConversationMessage.seq)  # there are no gaps
    rows = session.execute(select(column, newest).where(column.in_(ids)).group_by(column))
    return {row[0]: row[1] for row in rows}


def insert(session: Session, whole: Json) -> Json:
    """Keep an exported conversation under a new id; what was being made is cut there."""
    names = ("title", "system_prompt", "provider", "model", "created_at", "updated_at")
    values = {name: whole[name] for name in names if whole.get(name) is not None}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    title = whole.get("title") or title_of(whole["messages"])
    conversation = Conversation(**{**values, **stored_values(texts), "title": title, "id": uuid.uuid4().hex})
    session.add(conversation)
    session.flush()
    messages = [
        {
            **message,
            **stored_content(message["content"], message["data"]),
            "conversation_id": conversation.id,
            "seq": seq,
            "status": "cut" if message["status"] == "pending" else message["status"],
        }
        for seq, message in enumerate(whole["messages"], 1)
    ]
    if messages:
        session.execute(sql_insert(ConversationMessage), messages)
    return summary(conversation, len(whole["messages"]))


def stored_values(values: Json) -> Json:
    """Return a conversation's *values* as a database can hold them."""
    return {name: value and storable(value) for name, value in values.items()}


def stored_content(content: str, data: Json) -> Json:
    """Return a message's *content* and *data* as a database can hold them."""
    # PostgreSQL takes neither NaN nor Infinity, and JSON has neither.
    plain = json.loads(storable(json.dumps(data, ensure_ascii=False)), parse_constant=lambda _: None)
    return {"content": storable(content), "data": plain}


def title_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a title: the first line of the user's first message, cut at a word."""
    said = (m.get("content") for m in messages if m["role"] == "user")
    lines = (line for text in said if isinstance(text, str) for line in text.splitlines() if line.strip())
    title = storable(" ".join(next(lines, "").split()))
    if len(title) <= MAX_TITLE:
        return title
    cut = title[:MAX_TITLE]
    return f"{cut.rsplit(' ', 1)[0] if ' ' in cut else cut[:-1]}…"


def storable(text: str) -> str:
    """Return *text* without what no database holds: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

"""Store conversations in the database: each message is a row, which any process can read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypedDict, cast

from sqlalchemy import ColumnElement, Text, delete, func, or_, select, update
from sqlalchemy import cast as cast_sql
from sqlalchemy.orm import Session

from app.errors import ConversationBusy
from app.schemas.chat_results import Usage
from app.schemas.messages import Message
from app.services.conversations import rows
from app.services.conversations.export import exported
from app.services.conversations.search import Match, Search, snippets
from app.storage.database import Database
from app.storage.tables import Conversation, ConversationMessage, utc_now


class Found(rows.Summary, total=False):
    """A conversation in a list; a search adds the match."""

    match: Match


class Listing(TypedDict):
    """A page of conversations, and the number of all of them."""

    conversations: list[Found]
    total: int


HEARTBEAT = 5.0
"""Seconds between two heartbeats of a running answer."""

LARGEST_PAGE = 8_000_000
"""Characters of the messages of a page: writing a larger answer would keep other threads waiting."""

_VISIBLE = Conversation.import_id.is_(None)  # its import, if it comes from one, is complete


@dataclass
class Ticket:
    """A running answer: its place in the conversation, and the id of its run.

    The row loses its owner when the answer is saved, so that a late heartbeat cannot change the answer.
    """

    conversation_id: str
    seq: int
    owner: str


class ConversationStore:
    """The rows of the conversations and their messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, **values: str | None) -> rows.Summary:
        """Create a conversation with a `title`, `system_prompt`, `provider` and `model`, all optional."""
        with self._database.session() as session:
            id = uuid.uuid4().hex
            session.add(Conversation(id=id, **rows.stored_values(values)))
            session.flush()
            return rows.summary(rows.get(session, id), 0)

    def all(self, *, limit: int, offset: int, query: str = "") -> Listing:
        """Return a page of conversations, those with the newest messages first, and the number of all.

        :param query: return only conversations with a matching message or title; empty for all
        """
        search = Search.parse(query) if query.strip() else None
        with self._database.session() as session:
            chosen = _chosen(session, search)
            total = session.scalar(select(func.count()).select_from(Conversation).where(*chosen))
            order = (Conversation.updated_at.desc(), Conversation.id)
            page = select(Conversation).where(*chosen).order_by(*order).limit(limit).offset(offset)
            found = session.scalars(page).all()
            ids = [conversation.id for conversation in found]
            counts = rows.counts(session, ids)
            shown = [cast("Found", rows.summary(one, counts.get(one.id, 0))) for one in found]
            if search:
                matches = snippets(session, search, ids)
                for one in shown:
                    in_title: Match = {"seq": None, "snippet": search.snippet(one["title"])}
                    one["match"] = matches.get(one["id"], in_title)
        return {"conversations": shown, "total": total or 0}

    def get(self, id: str, *, limit: int, before: int | None = None) -> rows.WholeConversation:
        """Return a conversation with its last *limit* messages, or fewer if they exceed LARGEST_PAGE.

        :param before: return only messages before the one with this number
        :raises ConversationNotFound: when no conversation has that id
        """
        with self._database.session() as session:
            conversation = rows.get(session, id)
            wanted = [ConversationMessage.conversation_id == id]
            if before is not None:
                wanted.append(ConversationMessage.seq < before)
            fitting = _page(session, wanted, limit) if limit else 0
            query = select(ConversationMessage).where(*wanted).order_by(ConversationMessage.seq.desc())
            newest = session.scalars(query.limit(fitting)).all()
            messages = [rows.shown(message) for message in reversed(newest)]
            has_more = bool(messages) and messages[0]["seq"] > 1
            count = rows.counts(session, [id]).get(id, 0)
            return {**rows.summary(conversation, count), "messages": messages, "has_more": has_more}

    def update(self, id: str, **values: str | None) -> rows.Summary:
        """Change a conversation's `title`, `system_prompt`, `provider` or `model`."""
        with self._database.session() as session:
            conversation = rows.get(session, id, lock=True)
            for name, value in rows.stored_values(values).items():
                setattr(conversation, name, value)
            return rows.summary(conversation, rows.counts(session, [id]).get(id, 0))

    def delete(self, id: str) -> None:
        """Delete a conversation with its messages, even during an answer."""
        with self._database.session() as session:
            gone = session.execute(delete(Conversation).where(Conversation.id == id, _VISIBLE))
            if not gone.rowcount:  # type: ignore[attr-defined]
                raise rows.not_found(id)

    def export(self, id: str) -> rows.ExportedConversation:
        """Return a conversation with all its messages, in the format that can be imported."""
        with self._database.session() as session:
            conversation = rows.get(session, id)
            query = select(ConversationMessage).where(ConversationMessage.conversation_id == id)
            found = session.scalars(query.order_by(ConversationMessage.seq)).all()
            return exported(
                rows.summary(conversation, len(found)), [rows.shown(message) for message in found]
            )

    def turns(self, id: str) -> list[rows.Turn]:
        """Return all messages in order, for :func:`~app.services.conversations.fitting.fit`."""
        with self._database.session() as session:
            rows.get(session, id)
            query = select(ConversationMessage).where(ConversationMessage.conversation_id == id)
            found = session.scalars(query.order_by(ConversationMessage.seq))
            return [rows.as_turn(message) for message in found]

    def begin(self, id: str, messages: list[Message], provider: str, model: str) -> Ticket:
        """Save the user's *messages* and an empty, pending answer in one transaction; return its ticket.

        :param messages: each with `role`, `content`, and further fields, which go into `data`
        :raises ConversationNotFound: when no conversation has that id
        :raises ConversationBusy: when another answer is under way in it, in any process
        """
        now = utc_now()
        with self._database.session() as session:
            _lock(session, id)
            _end_stale(session, id)
            last = rows.counts(session, [id]).get(id, 0)
            conversation = rows.get(session, id)
            if not conversation.title:
                conversation.title = rows.title_of(messages)
            for seq, message in enumerate(messages, last + 1):
                said = rows.stored_content(message.get("content") or "", _extra(message))
                session.add(
                    ConversationMessage(
                        conversation_id=id, seq=seq, role=message["role"], created_at=now, **said
                    )
                )
            ticket = Ticket(id, last + len(messages) + 1, uuid.uuid4().hex)
            place = {"status": "pending", "owner": ticket.owner, "provider": provider, "model": model}
            session.add(
                ConversationMessage(
                    conversation_id=id, seq=ticket.seq, role="assistant", created_at=now, **place
                )
            )
            return ticket

    def touch(self, ticket: Ticket, so_far: str) -> None:
        """Write a heartbeat of the answer, and save its text *so_far*, in case of a crash."""
        values = {"heartbeat_at": utc_now(), "content": rows.storable(so_far)}
        with self._database.session() as session:
            session.execute(_of(ticket).values(**values))

    def finish(
        self,
        ticket: Ticket,
        *,
        status: str,
        content: str,
        data: Mapping[str, object] | None = None,
        usage: Usage | None = None,
        error: Mapping[str, object] | None = None,
        provider: str,
        model: str,
    ) -> bool:
        """Save the answer, and free the conversation; return False if the conversation was deleted meanwhile.

        An answer that another process has marked as cut is saved, too, in its place.

        :param status: `complete`, `failed`, `cut` or `stopped`
        """
        values: rows.Columns = {
            "status": status,
            "usage": usage,
            "error": error,
            "provider": provider,
            "model": model,
        }
        with self._database.session() as session:
            used = update(Conversation).where(Conversation.id == ticket.conversation_id)
            # Every transaction changes the conversation's row before the messages' rows, to avoid deadlocks.
            session.execute(used.values(updated_at=utc_now()))
            values |= rows.stored_content(content, data or {})
            return bool(session.execute(_of(ticket).values(owner="", **values)).rowcount)  # type: ignore[attr-defined]


def _lock(session: Session, id: str) -> None:
    """Make other writers to the conversation wait: beginning with an update does that in both databases."""
    used = update(Conversation).where(Conversation.id == id, _VISIBLE).values(updated_at=utc_now())
    if not session.execute(used).rowcount:  # type: ignore[attr-defined]
        raise rows.not_found(id)


def _end_stale(session: Session, id: str) -> None:
    """Mark answers whose process died as cut.

    :raises ConversationBusy: when an answer is still under way
    """
    pending = select(ConversationMessage).where(
        ConversationMessage.conversation_id == id, ConversationMessage.status == "pending"
    )
    for row in session.scalars(pending):
        row.status = rows.status_of(row)
        if row.status == "pending":
            raise ConversationBusy(
                "Another answer is under way in this conversation.",
                hint="Wait for it or stop it, then ask again.",
                retry_after=HEARTBEAT,
            )


def _page(session: Session, wanted: list[ColumnElement[bool]], limit: int) -> int:
    """Return how many of the newest *wanted* messages a page has: one at least, *limit* at most."""
    size = func.length(ConversationMessage.content) + func.length(cast_sql(ConversationMessage.data, Text))
    newest = select(size).where(*wanted).order_by(ConversationMessage.seq.desc()).limit(limit)
    sizes: Sequence[int] = session.scalars(newest).all()
    return max(1, sum(total <= LARGEST_PAGE for total in accumulate(sizes)))


def _of(ticket: Ticket) -> Any:
    """Return an UPDATE of the answer's row, which changes nothing if the row has another owner."""
    return update(ConversationMessage).where(
        ConversationMessage.conversation_id == ticket.conversation_id,
        ConversationMessage.seq == ticket.seq,
        ConversationMessage.owner == ticket.owner,
    )


def _chosen(session: Session, search: Search | None) -> list[ColumnElement[bool]]:
    if search is None:
        return [_VISIBLE]
    messages, titles = search.match(session)
    with_message = select(ConversationMessage.conversation_id).where(messages)
    return [_VISIBLE, or_(Conversation.id.in_(with_message), titles)]


def _extra(message: Message) -> rows.Columns:
    return {name: value for name, value in message.items() if name not in {"role", "content"}}

"""Conversations, their search indexes, and calls to providers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# Only the first 100,000 characters of a message are indexed: an index cannot hold texts of any length.
_FTS5 = (
    "create virtual table conversation_search using fts5(text, tokenize = 'unicode61 remove_diacritics 0')",
    """
    create virtual table conversation_search_titles
        using fts5(id unindexed, text, tokenize = 'unicode61 remove_diacritics 0')
    """,
    """
    create trigger conversation_search_insert after insert on conversation_messages begin
        insert into conversation_search(rowid, text) values (new.id, substr(new.content, 1, 100000));
    end;
    """,
    """
    create trigger conversation_search_update after update of content on conversation_messages begin
        update conversation_search set text = substr(new.content, 1, 100000) where rowid = new.id;
    end;
    """,
    """
    create trigger conversation_search_delete after delete on conversation_messages begin
        delete from conversation_search where rowid = old.id;
    end;
    """,
    """
    create trigger conversation_search_titles_insert after insert on conversations begin
        insert into conversation_search_titles(id, text) values (new.id, new.title);
    end;
    """,
    """
    create trigger conversation_search_titles_update after update of title on conversations begin
        update conversation_search_titles set text = new.title where id = new.id;
    end;
    """,
    """
    create trigger conversation_search_titles_delete after delete on conversations begin
        delete from conversation_search_titles where id = old.id;
    end;
    """,
)
# PostgreSQL takes an address or a tag as one word. Spaces replace the characters that join its parts, so that
# the search finds each part.
_GIN = """
create index conversation_search on conversation_messages using gin
    (to_tsvector('simple', translate(left(content, 100000), '@./_<>&=+:-', '           ')))
"""


def upgrade() -> None:
    """Create the tables, and the search indexes."""
    _create_conversations()
    _create_messages()
    _create_calls()
    _create_search()


def downgrade() -> None:
    """Drop the tables."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("drop table if exists conversation_search")
        op.execute("drop table if exists conversation_search_titles")
    for table in ("calls", "conversation_messages", "conversations"):
        op.drop_table(table)


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("system_prompt", sa.Text),
        sa.Column("provider", sa.String(80)),
        sa.Column("model", sa.Text),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_conversations_updated_at", "conversations", ["updated_at"])


def _create_messages() -> None:
    conversation = sa.ForeignKey("conversations.id", ondelete="CASCADE")
    op.create_table(
        "conversation_messages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("conversation_id", sa.String(32), conversation, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("provider", sa.String(80)),
        sa.Column("model", sa.Text),
        sa.Column("usage", sa.JSON),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("conversation_id", "seq", name="one_message_per_seq"),
    )


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("provider", sa.String(80), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("endpoint", sa.String(80), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("latency", sa.Double, nullable=False),
        sa.Column("time_to_first_token", sa.Double),
        sa.Column("tokens_per_second", sa.Double),
        sa.Column("load_time", sa.Double),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("fallback", sa.Boolean, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
    )
    op.create_index("ix_calls_at", "calls", ["at"])


def _create_search() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_GIN)
    elif _has_fts5():
        for statement in _FTS5:
            op.execute(statement)


def _has_fts5() -> bool:
    """Tell whether this is SQLite with FTS5; without FTS5, the search reads every message."""
    if op.get_bind().dialect.name != "sqlite":
        return False
    options = op.get_bind().execute(sa.text("select compile_options from pragma_compile_options"))
    return "ENABLE_FTS5" in options.scalars().all()

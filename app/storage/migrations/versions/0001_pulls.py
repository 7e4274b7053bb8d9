"""Pulls and their events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "pulls",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(700), nullable=False),
        sa.Column("key", sa.String(700), nullable=False),
        sa.Column("insecure", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("wanted", sa.String(16), nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger),
        sa.Column("percent", sa.Double),
        sa.Column("bytes_per_second", sa.Double, nullable=False),
        sa.Column("layers", sa.JSON, nullable=False),
        sa.Column("status_log", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )
    active = sa.text("status in ('queued', 'running', 'paused')")
    op.create_index(
        "one_active_pull_per_model",
        "pulls",
        ["key"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )
    op.create_table(
        "pull_events",
        sa.Column("pull_id", sa.String(32), sa.ForeignKey("pulls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("pull_events")
    op.drop_table("pulls")

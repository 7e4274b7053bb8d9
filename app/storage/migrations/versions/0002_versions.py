"""Kept versions of models, the last use of models, and the times of recurring work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "kept_versions",
        sa.Column("name", sa.String(700), primary_key=True),
        sa.Column("model", sa.String(700), nullable=False),
        sa.Column("key", sa.String(700), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("pull_id", sa.String(32), nullable=False),
        sa.Column("automatic", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_kept_versions_key", "kept_versions", ["key"])
    op.create_table(
        "model_uses",
        sa.Column("provider", sa.String(80), primary_key=True),
        sa.Column("key", sa.String(700), primary_key=True),
        sa.Column("used_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "occasions",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("occasions", "model_uses", "kept_versions"):
        op.drop_table(table)

"""Imports of conversations that are under way, and the mark that hides their conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table, and add the column."""
    op.create_table(
        "conversation_imports",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("heartbeat_at", sa.DateTime, nullable=False),
    )
    op.add_column("conversations", sa.Column("import_id", sa.String(32)))
    op.create_index(
        "hidden_conversations",
        "conversations",
        ["import_id"],
        sqlite_where=sa.text("import_id is not null"),
        postgresql_where=sa.text("import_id is not null"),
    )


def downgrade() -> None:
    """Delete the hidden conversations, and drop the column and the table."""
    op.execute("delete from conversations where import_id is not null")
    op.drop_index("hidden_conversations", "conversations")
    op.drop_column("conversations", "import_id")
    op.drop_table("conversation_imports")

"""Run the migrations on the connection from :mod:`app.storage.database`."""

from __future__ import annotations

from alembic import context

from app.storage.database import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()

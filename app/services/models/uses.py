"""Read when models were last used through this program.

:class:`~app.services.usage.log.UsageLog` writes the uses.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.storage.database import Database
from app.storage.tables import ModelUse, Occasion, utc_now

log = logging.getLogger(__name__)

_BEGINNING = "model_uses"


class ModelUses:
    """The last use of each model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, provider: str) -> dict[str, datetime]:
        """Return the last use of each model of *provider*, by the model's key."""
        with self._database.session() as session:
            rows = session.scalars(select(ModelUse).where(ModelUse.provider == provider))
            return {row.key: row.used_at for row in rows}

    def since(self) -> datetime:
        """Return when uses began to be recorded: the first call of this method, in any process."""
        with self._database.session() as session:
            if row := session.get(Occasion, _BEGINNING):
                row.at = min(row.at, utc_now())  # the clock was ahead at the first call
                return row.at
        try:
            with self._database.session() as session:
                session.add(Occasion(name=_BEGINNING, at=utc_now()))
        except IntegrityError:  # another process has inserted the row in the meantime
            log.debug("uses are noted already")
        return self.since()

"""When models were last used through this program: written by :class:`~app.services.usage.log.UsageLog`."""

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
        """Return when the models of *provider* were last used, by their keys."""
        with self._database.session() as session:
            rows = session.scalars(select(ModelUse).where(ModelUse.provider == provider))
            return {row.key: row.used_at for row in rows}

    def since(self) -> datetime:
        """Return since when uses are noted: the time of the first call of this method, in any process."""
        with self._database.session() as session:
            if row := session.get(Occasion, _BEGINNING):
                return row.at
        try:
            with self._database.session() as session:
                session.add(Occasion(name=_BEGINNING, at=utc_now()))
        except IntegrityError:  # another process was quicker
            log.debug("uses are noted already")
        return self.since()

"""When models were last used, as far as this program sees it."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.services.ollama.names import key_of, parse_listed
from app.storage.database import Database, ModelUse, Occasion, utc_now

log = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds between two writes for one model
_REMEMBERED = 1000  # uses; clients can think of any number of names
_BEGINNING = "model_uses"


class ModelUses:
    """The last use of each model; written beside the calls, which never wait for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "model-uses")

    def touch(self, provider: str, model: str) -> None:
        """Note that *model* is used now; a name that Ollama does not accept is left out."""
        if parse_listed(model) is None:
            return
        use = (provider, key_of(model))
        now = time.monotonic()
        with self._lock:
            if now - self._written.get(use, -_INTERVAL) < _INTERVAL:
                return
            self._written.pop(use, None)
            self._written[use] = now  # the newest is the last
            if len(self._written) > _REMEMBERED:
                del self._written[next(iter(self._written))]
        self._writer.submit(self._write, *use)

    def all(self, provider: str) -> dict[str, datetime]:
        """Return when the models of *provider* were last used, by their keys."""
        with self._database.session() as session:
            rows = session.scalars(select(ModelUse).where(ModelUse.provider == provider))
            return {row.key: row.used_at for row in rows}

    def since(self) -> datetime:
        """Return since when uses are noted; that is now, the first time that anybody asks."""
        with self._database.session() as session:
            if row := session.get(Occasion, _BEGINNING):
                return row.at
        try:
            with self._database.session() as session:
                session.add(Occasion(name=_BEGINNING, at=utc_now()))
        except IntegrityError:  # another process was quicker
            log.debug("uses are noted already")
        return self.since()

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.shutdown()

    def _write(self, provider: str, key: str) -> None:
        try:
            with self._database.session() as session:
                session.merge(ModelUse(provider=provider, key=key, used_at=utc_now()))
        except (
            SQLAlchemyError
        ):  # another process wrote it first, or the database is away: only a note is lost
            log.warning("the last use of %s could not be kept", key, exc_info=True)

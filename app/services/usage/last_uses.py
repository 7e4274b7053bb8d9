"""Write the last use of each model, together with the calls."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.model_name import ModelName
from app.storage.database import upsert
from app.storage.tables import ModelUse

_INTERVAL = 60.0  # seconds between two writes for one model
_REMEMBERED = 1000  # models: clients can invent any number of names

_Key = tuple[str, str]  # the provider, and the model's full name in lower case


@dataclass(frozen=True)
class ModelUsed:
    """A model was used."""

    provider: str
    model: str
    at: datetime

    @property
    def key(self) -> _Key | None:
        """The key of the use; None for a name that Ollama does not accept."""
        try:
            return self.provider[:80], ModelName.parse(self.model).key.full
        except ValueError:
            return None


class LastUses:
    """Writes the last use of each model, at most once a minute."""

    def __init__(self) -> None:
        self._written: dict[_Key, float] = {}  # the monotonic time of the last write; the newest comes last

    def due(self, uses: Iterable[ModelUsed]) -> dict[_Key, datetime]:
        """Return the last use of each model, without models that were written less than a minute ago."""
        newest = {(use.provider, use.model): use for use in uses}  # to parse the name of a model once
        last: dict[_Key, datetime] = {}
        for use in newest.values():
            if key := use.key:
                last[key] = max(use.at, last.get(key, use.at))
        now = time.monotonic()
        return {key: at for key, at in last.items() if now - self._written.get(key, -_INTERVAL) >= _INTERVAL}

    def write(self, session: Session, due: dict[_Key, datetime]) -> None:
        """Write the uses in *due*, sorted by key: so two processes cannot deadlock."""
        rows = [{"provider": key[0], "key": key[1], "used_at": due[key]} for key in sorted(due)]
        if rows:
            upsert(session, ModelUse, rows)

    def written(self, keys: Iterable[_Key]) -> None:
        """Remember that the uses of *keys* are in the database."""
        now = time.monotonic()
        for key in keys:
            self._written.pop(key, None)
            self._written[key] = now
        while len(self._written) > _REMEMBERED:
            del self._written[next(iter(self._written))]

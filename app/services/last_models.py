"""The last known list of models, for when Ollama is down."""

from __future__ import annotations

import logging
import os
from datetime import datetime, timezone
from pathlib import Path

from marshmallow import ValidationError

from app.errors import StorageFailed
from app.schemas.models import ModelListSchema
from app.storage.json_file import Json, JsonFile

log = logging.getLogger(__name__)


class LastModels:
    """The last list that the Ollama at *url* answered, kept at *path*.

    The file is written when the list changed; its time of change is the time of the last answer.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._file = JsonFile(path, _check)
        self._url = url

    def keep(self, listing: Json) -> None:
        """Keep what was just answered; a listing does not fail because it cannot be kept."""
        kept = {"url": self._url, "models": ModelListSchema().dump(listing)["models"]}
        try:
            if self._file.read() == kept:
                os.utime(self._file.path)
            else:
                self._file.update(lambda stored: stored.update(kept))
        except (OSError, StorageFailed) as exc:
            log.warning("the list of models cannot be kept: %s", exc)

    def get(self) -> Json | None:
        """Return the last list and when it was answered: ``models``, ``as_of``, ``age_seconds``."""
        try:
            kept = self._file.read()
        except StorageFailed:
            return None
        if kept.get("url") != self._url:
            return None
        as_of = datetime.fromtimestamp(self._file.path.stat().st_mtime, timezone.utc)
        age = datetime.now(timezone.utc) - as_of
        listing: Json = ModelListSchema().load(kept)
        return {**listing, "as_of": as_of, "age_seconds": max(0, int(age.total_seconds()))}


def _check(kept: Json) -> None:
    try:
        ModelListSchema().load(kept)
    except ValidationError as exc:
        raise ValueError("it is no list of models") from exc

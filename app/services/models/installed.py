"""List, show and copy the installed models."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from marshmallow import ValidationError

from app.errors import NotFound, StorageFailed, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from app.model_name import ModelName
from app.schemas.models import InstalledModel, ModelList, ModelListing, ModelListSchema
from app.schemas.show import CopiedModel, ModelDetail
from app.services.models.memory import in_memory, memory_of
from app.services.models.protection import Protection
from app.services.ollama import OllamaServers, OllamaService, check_name, find_model
from app.storage.json_file import Json, JsonFile
from app.upstream.json import count

log = logging.getLogger(__name__)

_SORT_KEYS: dict[str, Callable[[InstalledModel], Any]] = {
    "name": lambda model: model["name"].lower(),
    "size": lambda model: model["size"],
    "modified_at": lambda model: model["modified_at"],
}


class InstalledModels:
    """Lists, shows and copies the models that are installed on the Ollama server.

    :param last: keeps the last list, for requests while Ollama is down
    """

    def __init__(self, ollamas: OllamaServers, last: LastModels, protection: Protection) -> None:
        self._ollamas = ollamas
        self._protection = protection
        self._last = last

    def list(
        self,
        *,
        loaded: bool | None = None,
        capability: str | None = None,
        sort: str | None = None,
        stale: str | None = None,
    ) -> ModelListing:
        """Return the installed models, the newest first.

        :param loaded: True for the models in memory only, False for all others only; each model then has
            ``loaded``
        :param capability: return only models with this capability
        :param sort: ``name``, ``size`` or ``modified_at``; descending with a ``-`` in front
        :param stale: ``ok`` to return the last known list when Ollama is down
        """
        ollama = self._ollamas.main()
        answer = self._now_or_last(ollama, stale=stale == "ok" and loaded is None)
        models = answer["models"]
        if loaded is not None:
            running = ollama.ps()["models"]
            models = [{**m, "loaded": in_memory(running, m) is not None} for m in models]
            models = [m for m in models if m["loaded"] is loaded]
        if capability:
            models = [m for m in models if capability in _capabilities(ollama, m)]
        if sort:
            models.sort(key=_SORT_KEYS[sort.lstrip("-")], reverse=sort.startswith("-"))
        return {**answer, "models": models, "total": len(models)}

    def get(self, model: str) -> ModelDetail:
        """Return the details of *model*.

        :raises ModelNotFound: when it is not installed
        """
        name = check_name(model)
        ollama = self._ollamas.main()
        shown = ollama.show(str(name))
        listed = ollama.list()["models"]
        entry = _find(ollama, listed, name)
        running = in_memory(ollama.ps()["models"], entry)
        in_force = running["context_length"] if running else count(shown["parameters"].get("num_ctx"))
        detail: ModelDetail = {
            "name": entry["name"],
            "size": entry["size"],
            "digest": entry["digest"],
            "modified_at": entry["modified_at"],
            "details": entry["details"],
            "capabilities": shown["capabilities"] or entry.get("capabilities", []),
            "context": {"trained": shown["trained_context"], "in_force": in_force},
            "parameters": shown["parameters"],
            "template": shown["template"],
            "system": shown["system"],
            "license": shown["license"],
            "requires": shown["requires"],
            "aliases": [m["name"] for m in listed if m["digest"] == entry["digest"] and m is not entry],
            "loaded": running is not None,
        }
        return {**detail, **memory_of(running)} if running else detail

    def copy(self, source: str, destination: str, *, overwrite: bool = False) -> CopiedModel:
        """Give *source* a second name.

        :raises ModelNotFound: when it is not installed
        :raises ModelExists: when the second name is taken
        :raises ModelProtected: when the model that has the second name is protected
        """
        old, new = check_name(source), check_name(destination)
        ollama = self._ollamas.main()
        listed = ollama.list()["models"]
        _find(ollama, listed, old)
        self._protection.check_free(new, listed, overwrite=overwrite)
        ollama.copy(str(old), str(new))
        return {"source": str(old), "destination": str(new), "copied": True}

    def _now_or_last(self, ollama: OllamaService, *, stale: bool) -> ModelListing:
        url = ollama.provider.native_url
        try:
            listing = ollama.list()
        except (UpstreamUnavailable, UpstreamTimeout):
            last = self._last.get(url) if stale else None
            if last is None:
                raise
            return {**last, "stale": True}
        self._last.keep(url, listing)
        return cast("ModelListing", listing)


def _find(ollama: OllamaService, listed: Sequence[InstalledModel], name: ModelName) -> InstalledModel:
    found = find_model(listed, str(name))
    if found is None:
        raise ollama.model_not_found(str(name))
    return found


def _capabilities(ollama: OllamaService, model: InstalledModel) -> Sequence[str]:
    """Return the capabilities of *model*."""
    if "capabilities" in model:
        return model["capabilities"]
    try:  # Ollama before 0.30 does not list capabilities; it shows those of a single model
        return ollama.show(model["name"])["capabilities"]
    except (NotFound, UpstreamError):  # its weights are missing or damaged
        return []


class LastModels:
    """Keeps Ollama's last list of models, and the server's address, in a file.

    The file is written only when the list changes; its modification time is the time of the last answer.
    """

    def __init__(self, path: Path) -> None:
        self._file = JsonFile(path, _check)

    def keep(self, url: str, listing: ModelList) -> None:
        """Keep the list of the server at *url*; when the file cannot be written, only log that."""
        kept = {"url": url, "models": ModelListSchema().dump(listing)["models"]}
        try:
            if self._file.read() == kept:
                os.utime(self._file.path)
            else:
                self._file.update(lambda stored: stored.update(kept))
        except (OSError, StorageFailed) as exc:
            log.warning("the list of models cannot be kept: %s", exc)

    def get(self, url: str) -> ModelListing | None:
        """Return the last list of the server at *url*, with its time and age; None if none is kept."""
        try:
            kept = self._file.read()
        except StorageFailed:
            return None
        if kept.get("url") != url:
            return None
        as_of = datetime.fromtimestamp(self._file.path.stat().st_mtime, timezone.utc)
        age = datetime.now(timezone.utc) - as_of
        listing: ModelListing = ModelListSchema().load(kept)
        return {**listing, "as_of": as_of, "age_seconds": max(0, int(age.total_seconds()))}


def _check(kept: Json) -> None:
    try:
        ModelListSchema().load(kept)
    except ValidationError as exc:
        raise ValueError("it is no list of models") from exc

"""Deleting models: what is protected stays, and what that frees is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.model_name import ModelName
from app.services.footprint import Footprint
from app.services.local_store import LocalStore
from app.services.memory import MemoryService
from app.services.model_uses import full_name
from app.services.ollama import OllamaService, check_name, find_model
from app.services.protection import Protection
from app.services.versions import VersionStore

Json = dict[str, Any]


@dataclass(frozen=True)
class RemovalService:
    """Deletes models of one Ollama server.

    :param environ: where the models folder may be named
    """

    ollama: OllamaService
    environ: Mapping[str, str | None]
    versions: VersionStore
    protection: Protection

    def delete(self, model: str, *, dry_run: bool = False, versions: bool = False) -> Json:
        """Delete *model*, and tell how many bytes the disk has back.

        :param dry_run: only tell
        :param versions: also the former versions of it that updates have kept
        :raises ModelNotFound: when it is not installed
        :raises ModelProtected: when it is protected; then nothing is deleted
        """
        name = check_name(model)
        self.protection.check(str(name))
        listed = self.ollama.list()["models"]
        entry = find_model(listed, name)
        if entry is None:
            raise self.ollama.model_not_found(str(name))
        former = self._former(name, listed)
        going = [entry, *former] if versions else [entry]
        for each in going:
            self.protection.check(each["name"])
        digests = {m["digest"] for m in listed}
        footprint = Footprint(LocalStore.find(self.ollama.provider, self.environ, digests), going, listed)
        if not dry_run:
            for each in going:
                self._delete(each["name"])
        return {
            "model": entry["name"],
            "deleted": not dry_run,
            "dry_run": dry_run,
            **(footprint.expected() if dry_run else footprint.freed()),
            "deleted_versions": [each["name"] for each in going[1:]],
            "kept_versions": [] if versions else [each["name"] for each in former],
        }

    def _former(self, name: ModelName, listed: list[Json]) -> list[Json]:
        rows = self.versions.kept(full_name(str(name)))
        found = [find_model(listed, ModelName.parse(row.name)) for row in rows]
        return [entry for entry in found if entry is not None]

    def _delete(self, model: str) -> None:
        MemoryService(self.ollama).release(check_name(model))
        self.ollama.delete(model)
        self.versions.delete(str(check_name(model)))

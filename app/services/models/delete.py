"""Deleting models: what is protected stays, and what that frees is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.model_name import ModelName
from app.services.models.memory import MemoryService
from app.services.models.protection import Protection
from app.services.models.versions import VersionStore
from app.services.ollama.folder import LocalStore, ModelFolders
from app.services.ollama.names import check_name, find_model, key_of
from app.services.ollama.registry import Layer
from app.services.ollama.service import OllamaServers, OllamaService

Json = dict[str, Any]


@dataclass(frozen=True)
class RemovalService:
    """Deletes models of Ollama."""

    ollamas: OllamaServers
    folders: ModelFolders
    memory: MemoryService
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
        ollama = self.ollamas.main()
        listed = ollama.list()["models"]
        entry = find_model(listed, str(name))
        if entry is None:
            raise ollama.model_not_found(str(name))
        former = self._former(name, listed)
        going = [entry, *former] if versions else [entry]
        for each in going:
            self.protection.check(each["name"])
        footprint = Footprint(self.folders.find(ollama, listed), going, listed)
        if not dry_run:
            for each in going:
                self._delete(ollama, each["name"])
        return {
            "model": entry["name"],
            "deleted": not dry_run,
            "dry_run": dry_run,
            **(footprint.expected() if dry_run else footprint.freed()),
            "deleted_versions": [each["name"] for each in going[1:]],
            "kept_versions": [] if versions else [each["name"] for each in former],
        }

    def _former(self, name: ModelName, listed: list[Json]) -> list[Json]:
        rows = self.versions.kept(key_of(str(name)))
        found = [find_model(listed, row.name) for row in rows]
        return [entry for entry in found if entry is not None]

    def _delete(self, ollama: OllamaService, model: str) -> None:
        self.memory.release(check_name(model))
        ollama.delete(model)
        self.versions.delete(str(check_name(model)))


class Footprint:
    """The disk space of some models, as it is before they are deleted.

    :param store: Ollama's models folder, where it is on this machine
    :param going: the models as Ollama lists them
    :param listed: all that it lists
    """

    def __init__(self, store: LocalStore | None, going: list[Json], listed: Iterable[Json]) -> None:
        installed = store.models() if store else {}
        manifests = [installed.pop(model["name"], None) for model in going]
        staying = {m["digest"] for m in listed if m not in going}
        sizes = {model["digest"]: model["size"] for model in going}
        self._size = sum(sizes.values())
        self._freed = sum(size for digest, size in sizes.items() if digest not in staying)
        self._shared = {layer.digest for other in installed.values() for layer in other.layers}
        self._store: LocalStore | None = None
        self._layers: dict[str, Layer] = {}
        if store is not None and [m and m.digest for m in manifests] == [m["digest"] for m in going]:
            self._store = store
            layers = (layer for manifest in manifests if manifest for layer in manifest.layers)
            self._layers = {layer.digest: layer for layer in layers if store.has_blob(layer.digest)}

    def expected(self) -> Json:
        """Tell what deleting the models would free: the layers that no other one uses."""
        return self._told(lambda digest: digest not in self._shared)

    def freed(self) -> Json:
        """Tell what is really gone, after the models were deleted."""
        store = self._store
        return self._told(lambda digest: store is not None and not store.has_blob(digest))

    def _told(self, is_freed: Callable[[str], bool]) -> Json:
        if self._store is None:
            shared = self._size - self._freed
            return {"freed_bytes": self._freed, "shared_bytes": shared, "estimated": True}
        layers = [{**vars(layer), "freed": is_freed(layer.digest)} for layer in self._layers.values()]
        freed = sum(layer["size"] for layer in layers if layer["freed"])
        total = sum(layer["size"] for layer in layers)
        return {
            "freed_bytes": freed,
            "shared_bytes": total - freed,
            "estimated": False,
            "layers": layers,
        }

"""Delete models that are not protected, and tell the disk space that each deletion frees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.manifest import Layer
from app.schemas.models import InstalledModel
from app.schemas.show import DeletedModel, FreedLayer, FreedSpace
from app.services.models.memory import MemoryService
from app.services.models.protection import Protection
from app.services.models.versions import VersionStore
from app.services.ollama import (
    LocalStore,
    ModelFolders,
    OllamaServers,
    OllamaService,
    check_name,
    find_model,
    key_of,
)


@dataclass(frozen=True)
class RemovalService:
    """Deletes models from the Ollama server."""

    ollamas: OllamaServers
    folders: ModelFolders
    memory: MemoryService
    versions: VersionStore
    protection: Protection

    def delete(self, model: str, *, dry_run: bool = False, versions: bool = False) -> DeletedModel:
        """Delete *model*, and return the disk space that it frees.

        :param dry_run: delete nothing; return what the deletion would free
        :param versions: also delete the former versions that updates have kept
        :raises ModelNotFound: when *model* is not installed
        :raises ModelProtected: when *model* or a version is protected; then nothing is deleted
        """
        name = str(check_name(model))
        self.protection.check(name)
        ollama = self.ollamas.main()
        listed = ollama.list()["models"]
        entry = find_model(listed, name)
        if entry is None:
            raise ollama.model_not_found(name)
        former = self._former(name, listed)
        going = [entry, *former] if versions else [entry]
        for each in going:
            self.protection.check(each["name"])
        footprint = footprint_of(going, listed, self.folders.find(ollama, listed))
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

    def _former(self, name: str, listed: list[InstalledModel]) -> list[InstalledModel]:
        """Return the kept former versions of a model, if they are still installed."""
        found = [find_model(listed, row.name) for row in self.versions.kept(key_of(name))]
        return [entry for entry in found if entry is not None]

    def _delete(self, ollama: OllamaService, model: str) -> None:
        self.memory.release(model)
        ollama.delete(model)
        self.versions.delete(str(check_name(model)))


@dataclass(frozen=True)
class MeasuredFootprint:
    """The disk space of models whose manifests can be read, measured before the deletion.

    :param layers: the layers of the models that are on the disk
    :param shared: the digests of the layers that other models use too
    """

    folder: LocalStore
    layers: list[Layer]
    shared: set[str]

    def expected(self) -> FreedSpace:
        """Return what the deletion would free: the layers that no other model uses."""
        return self._told(lambda digest: digest not in self.shared)

    def freed(self) -> FreedSpace:
        """Return what the deletion has freed: the layers that are gone from the disk."""
        return self._told(lambda digest: not self.folder.has_blob(digest))

    def _told(self, is_freed: Callable[[str], bool]) -> FreedSpace:
        layers: list[FreedLayer] = [
            {
                "digest": layer.digest,
                "size": layer.size,
                "media_type": layer.media_type,
                "freed": is_freed(layer.digest),
            }
            for layer in self.layers
        ]
        freed = sum(layer["size"] for layer in layers if layer["freed"])
        total = sum(layer["size"] for layer in layers)
        return {"freed_bytes": freed, "shared_bytes": total - freed, "estimated": False, "layers": layers}


@dataclass(frozen=True)
class EstimatedFootprint:
    """The disk space of models, estimated from the list of models.

    The list does not tell layers, so only models with the same digest count as sharing space.
    """

    size: int
    unshared: int

    def expected(self) -> FreedSpace:
        """Return what the deletion frees."""
        return {
            "freed_bytes": self.unshared,
            "shared_bytes": self.size - self.unshared,
            "estimated": True,
        }

    freed = expected


def footprint_of(
    going: list[InstalledModel], listed: list[InstalledModel], folder: LocalStore | None
) -> MeasuredFootprint | EstimatedFootprint:
    """Return the disk space of the models in *going*, which will be deleted.

    :param listed: all models that Ollama lists
    :param folder: Ollama's models folder; None if it is not on this machine
    """
    installed = folder.models() if folder else {}
    manifests = [installed.pop(model["name"], None) for model in going]
    # Other digests in the folder mean that a model has changed since it was listed: then only estimate.
    if folder and [manifest and manifest.digest for manifest in manifests] == [m["digest"] for m in going]:
        layers = {layer.digest: layer for manifest in manifests if manifest for layer in manifest.layers}
        return MeasuredFootprint(
            folder,
            layers=[layer for layer in layers.values() if folder.has_blob(layer.digest)],
            shared={layer.digest for other in installed.values() for layer in other.layers},
        )
    sizes = {model["digest"]: model["size"] for model in going}
    staying = {model["digest"] for model in listed if model not in going}
    return EstimatedFootprint(
        size=sum(sizes.values()),
        unshared=sum(size for digest, size in sizes.items() if digest not in staying),
    )

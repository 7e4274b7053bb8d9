"""Tell the disk space of models. Models share layers, and a shared layer takes its space only once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.schemas.disk import Disk, ModelDisk
from app.schemas.models import InstalledModel
from app.services.models.removable import Known, verdicts
from app.services.models.uses import ModelUses
from app.services.models.versions import VersionStore
from app.services.ollama import (
    LocalStore,
    ManifestSummary,
    ModelFolders,
    OllamaServers,
    key_of,
    partial_bytes,
)
from app.services.settings import SettingsStore
from app.storage.database import utc_now

Parts = Mapping[str, Mapping[str, int]]
"""The bytes of each part of each model, by the model's name and the part's digest."""


@dataclass(frozen=True)
class DiskService:
    """Tells the disk space of Ollama's models, and which models are safe to remove."""

    ollamas: OllamaServers
    folders: ModelFolders
    uses: ModelUses
    versions: VersionStore
    settings: SettingsStore

    def usage(self) -> Disk:
        """Return the disk space of the models, and which of them are safe to remove."""
        ollama = self.ollamas.main()
        listed = ollama.list()["models"]
        folder = self.folders.find(ollama, listed)
        uses = self.uses.all(ollama.provider.id)
        settings = self.settings.all()
        parts = parts_of(listed, folder.models() if folder else {})
        found = usage(listed, folder, parts, uses)
        known = Known(
            uses=uses,
            watched_since=self.uses.since(),
            protected=_keys(settings["protected_models"]),
            pinned=_keys(settings["pinned_models"]),
            running=ollama.ps()["models"],
            kept=self.versions.all(),
            now=utc_now(),
        )
        judged = verdicts(listed, known)
        for model in found["models"]:
            key = key_of(model["model"])
            is_safe, reason = judged.get(key, (False, "Ollama does not list it."))
            model["protected"] = key in known.protected
            model["safe_to_remove"], model["reason"] = is_safe, reason
        safe = {model["model"] for model in found["models"] if model["safe_to_remove"]}
        return {**found, "safe_to_remove_bytes": freed_together(safe, parts)}


def _keys(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(key_of, names))


def parts_of(listed: Iterable[InstalledModel], manifests: Mapping[str, ManifestSummary]) -> Parts:
    """Return the parts of each model: its layers, or the whole model as one part if its layers are unknown.

    :param listed: the models that Ollama lists
    :param manifests: the manifests in Ollama's folder, by name; empty if it is not on this machine
    """
    measured = {
        name: {layer.digest: layer.size for layer in manifest.layers} for name, manifest in manifests.items()
    }
    known = {key_of(name) for name in measured}
    others = {
        model["name"]: {model["digest"]: model["size"]}
        for model in listed
        if key_of(model["name"]) not in known
    }
    return {**measured, **others}


def freed_together(names: Collection[str], parts: Parts) -> int:
    """Return the bytes that are freed when all models in *names* are deleted."""
    staying = {digest for name, sizes in parts.items() if name not in names for digest in sizes}
    going = {digest: size for name in names for digest, size in parts.get(name, {}).items()}
    return sum(size for digest, size in going.items() if digest not in staying)


def usage(
    listed: Iterable[InstalledModel], folder: LocalStore | None, parts: Parts, uses: Mapping[str, datetime]
) -> Disk:
    """Return the disk space of the models, the largest first.

    :param folder: Ollama's models folder; None if it is not on this machine
    :param uses: the time of each model's last use, by the model's key
    """
    models = sizes_of(parts)
    for model in models:
        model["last_used_at"] = uses.get(key_of(model["model"]))
    return {
        "path": str(folder.path) if folder else None,
        "models": sorted(models, key=lambda model: (-model["size"], model["model"])),
        "total_bytes": freed_together(parts, parts),
        "free_bytes": folder.free_bytes() if folder else None,
        "duplicates": duplicates({m["name"]: m["digest"] for m in listed}),
        "partial_bytes": partial_bytes(folder.path / "blobs") if folder else None,
        "estimated": folder is None,
    }


def sizes_of(parts: Parts) -> list[ModelDisk]:
    """Return for each model its size, the bytes it shares, and the bytes that deleting it alone frees."""
    users = Counter(digest for sizes in parts.values() for digest in sizes)
    found: list[ModelDisk] = []
    for name, sizes in parts.items():
        size = sum(sizes.values())
        shared = sum(size for digest, size in sizes.items() if users[digest] > 1)
        found.append(
            {"model": name, "size": size, "shared_bytes": shared, "reclaimable_bytes": size - shared}
        )
    return found


def duplicates(digests: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of names that have the same digest."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, digest in sorted(digests.items()):
        groups[digest].append(name)
    return sorted(group for group in groups.values() if len(group) > 1)

"""What the models take on the disk: layers that several models share are there once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.services.models.removable import Known, verdicts
from app.services.models.uses import ModelUses
from app.services.models.versions import VersionStore
from app.services.ollama.folder import LocalStore, ModelFolders, partial_bytes
from app.services.ollama.names import full_name
from app.services.ollama.registry import ManifestSummary
from app.services.ollama.service import OllamaServers
from app.services.settings import SettingsStore
from app.storage.database import utc_now

Json = dict[str, Any]


@dataclass(frozen=True)
class DiskService:
    """The disk of Ollama."""

    ollamas: OllamaServers
    folders: ModelFolders
    uses: ModelUses
    versions: VersionStore
    settings: SettingsStore

    def usage(self) -> Json:
        """Return what the models take, and which of them can go."""
        ollama = self.ollamas.main()
        listed = ollama.list()["models"]
        folder = self.folders.find(ollama, listed)
        uses = self.uses.all(ollama.provider.id)
        found = usage(listed, folder, uses)
        known = Known(
            uses=uses,
            watched_since=self.uses.since(),
            protected=self._named("protected_models"),
            pinned=self._named("pinned_models"),
            running=ollama.ps()["models"],
            kept=self.versions.all(),
            now=utc_now(),
        )
        judged = verdicts(listed, known)
        for model in found["models"]:
            key = full_name(model["model"])
            is_safe, reason = judged.get(key, (False, "Ollama does not list it."))
            model.update(protected=key in known.protected, safe_to_remove=is_safe, reason=reason)
        safe = {model["model"] for model in found["models"] if model["safe_to_remove"]}
        return {**found, "safe_to_remove_bytes": freed_together(safe, _sizes(folder, listed))}

    def _named(self, setting: str) -> frozenset[str]:
        return frozenset(full_name(name) for name in self.settings.all()[setting])


def _sizes(folder: LocalStore | None, listed: list[Json]) -> dict[str, dict[str, int]]:
    """Return the sizes of the parts of each model, by what tells the parts from each other."""
    if folder is None:
        return {model["name"]: {model["digest"]: model["size"]} for model in listed}
    return {name: _layers([manifest]) for name, manifest in folder.models().items()}


def freed_together(names: Collection[str], sizes: Mapping[str, Mapping[str, int]]) -> int:
    """Return what deleting all the models in *names* would free.

    :param sizes: of the parts of every model, by their digest
    """
    staying = {digest for name, parts in sizes.items() if name not in names for digest in parts}
    going = {digest: size for name in names for digest, size in sizes.get(name, {}).items()}
    return sum(size for digest, size in going.items() if digest not in staying)


def usage(listed: list[Json], store: LocalStore | None, uses: Mapping[str, datetime]) -> Json:
    """Return what the *listed* models take, the largest first.

    :param store: Ollama's models folder; where it is not on this machine, sizes are as Ollama lists them
    :param uses: when each model was last used, by its full name in lower case
    """
    models = measured(store.models()) if store else estimated(listed)
    total = sum(_layers(store.models().values()).values()) if store else _listed_total(listed)
    for model in models:
        model["last_used_at"] = uses.get(full_name(model["model"]))
    return {
        "path": str(store.path) if store else None,
        "models": sorted(models, key=lambda model: (-model["size"], model["model"])),
        "total_bytes": total,
        "free_bytes": store.free_bytes() if store else None,
        "duplicates": duplicates({m["name"]: m["digest"] for m in listed}),
        "partial_bytes": partial_bytes(store.path / "blobs") if store else None,
        "estimated": store is None,
    }


def measured(manifests: Mapping[str, ManifestSummary]) -> list[Json]:
    """Return what each of *manifests* takes: what it shares, and what deleting it would free."""
    users: defaultdict[str, int] = defaultdict(int)
    for manifest in manifests.values():
        for digest in _layers([manifest]):
            users[digest] += 1
    found = []
    for name, manifest in manifests.items():
        layers = _layers([manifest])
        shared = sum(size for digest, size in layers.items() if users[digest] > 1)
        sizes = {"size": manifest.size, "shared_bytes": shared, "reclaimable_bytes": manifest.size - shared}
        found.append({"model": name, **sizes})
    return found


def estimated(listed: list[Json]) -> list[Json]:
    """Return what each of the *listed* models takes, where only those with the same digest share."""
    names = {model["name"]: model["digest"] for model in listed}
    same = {name for group in duplicates(names) for name in group}
    return [
        {
            "model": model["name"],
            "size": model["size"],
            "shared_bytes": model["size"] if model["name"] in same else 0,
            "reclaimable_bytes": 0 if model["name"] in same else model["size"],
        }
        for model in listed
    ]


def duplicates(digests: Mapping[str, str]) -> list[list[str]]:
    """Return the names that have the same digest, in groups."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, digest in sorted(digests.items()):
        groups[digest].append(name)
    return sorted(group for group in groups.values() if len(group) > 1)


def _layers(manifests: Iterable[ManifestSummary]) -> dict[str, int]:
    return {layer.digest: layer.size for manifest in manifests for layer in manifest.layers}


def _listed_total(listed: list[Json]) -> int:
    return sum({model["digest"]: model["size"] for model in listed}.values())

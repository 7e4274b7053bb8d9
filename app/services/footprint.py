"""What models take on the disk, and what of it others use too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from app.services.local_store import LocalStore
from app.services.registry import Layer

Json = dict[str, Any]


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

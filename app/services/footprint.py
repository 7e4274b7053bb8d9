"""What a model takes on the disk, and what of it other models use too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from app.services.local_store import LocalStore
from app.services.registry import Layer

Json = dict[str, Any]


class Footprint:
    """The disk space of one model, as it is before the model is deleted.

    :param store: Ollama's models folder, where it is on this machine
    :param model: the model as Ollama lists it
    :param listed: all that it lists
    """

    def __init__(self, store: LocalStore | None, model: Json, listed: Iterable[Json]) -> None:
        installed = store.models() if store else {}
        manifest = installed.pop(model["name"], None)
        self._size: int = model["size"]
        self._has_alias = any(m["digest"] == model["digest"] for m in listed if m is not model)
        self._shared = {layer.digest for other in installed.values() for layer in other.layers}
        self._store: LocalStore | None = None
        self._layers: dict[str, Layer] = {}
        if store is not None and manifest is not None and manifest.digest == model["digest"]:
            self._store = store
            here = (layer for layer in manifest.layers if store.has_blob(layer.digest))
            self._layers = {layer.digest: layer for layer in here}

    def expected(self) -> Json:
        """Tell what deleting the model would free: the layers that no other model uses."""
        return self._told(lambda digest: digest not in self._shared)

    def freed(self) -> Json:
        """Tell what is really gone, after the model was deleted."""
        store = self._store
        return self._told(lambda digest: store is not None and not store.has_blob(digest))

    def _told(self, is_freed: Callable[[str], bool]) -> Json:
        if self._store is None:
            freed = 0 if self._has_alias else self._size
            return {"freed_bytes": freed, "shared_bytes": self._size - freed, "estimated": True}
        layers = [{**vars(layer), "freed": is_freed(layer.digest)} for layer in self._layers.values()]
        freed = sum(layer["size"] for layer in layers if layer["freed"])
        total = sum(layer["size"] for layer in layers)
        return {
            "freed_bytes": freed,
            "shared_bytes": total - freed,
            "estimated": False,
            "layers": layers,
        }

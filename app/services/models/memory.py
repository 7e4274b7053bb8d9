"""List, load and unload the models in Ollama's memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.model_name import ModelName
from app.schemas.models import InstalledModel
from app.schemas.running import LoadedModel, Memory, RunningList, RunningModel, UnloadedModel
from app.services.ollama import OllamaServers, OllamaService, check_name, find_model

_POLLS = 40  # Ollama lists an unloaded model for a moment longer, or until the model has ended its answer
_POLL_SECONDS = 0.05


class MemoryService:
    """Lists, loads and unloads models."""

    def __init__(self, ollamas: OllamaServers) -> None:
        self._ollamas = ollamas

    def list(self) -> RunningList:
        """Return the models in memory."""
        return self._ollamas.main().ps()

    def load(self, model: str, keep_alive: float | str | None = None) -> LoadedModel:
        """Load *model*, and return the memory that it takes."""
        name = check_name(model)
        ollama = self._ollamas.main()
        ollama.load(str(name), keep_alive)
        entry = _entry(ollama, name)
        if entry is None:
            return {"model": str(name), "loaded": False}
        return {
            **memory_of(entry),
            "model": str(name),
            "loaded": True,
            "size": entry["size"],
            "context_length": entry["context_length"],
        }

    def unload(self, model: str) -> UnloadedModel:
        """Unload *model*; ``loaded`` stays true while the model is still answering a request."""
        name = check_name(model)
        ollama = self._ollamas.main()
        ollama.unload(str(name))
        return {"model": str(name), "loaded": not _is_gone(ollama, name)}

    def release(self, model: str) -> None:
        """Unload *model* before it is deleted, if it is loaded under this name."""
        if find_model(self._ollamas.main().ps()["models"], model):
            self.unload(model)


def _entry(ollama: OllamaService, name: ModelName) -> RunningModel | None:
    running = ollama.ps()["models"]
    if found := find_model(running, str(name)):
        return found
    installed = find_model(ollama.list()["models"], str(name))
    return in_memory(running, installed) if installed else None


def _is_gone(ollama: OllamaService, name: ModelName) -> bool:
    for _ in range(_POLLS):
        if find_model(ollama.ps()["models"], str(name)) is None:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def in_memory(running: Sequence[RunningModel], model: InstalledModel) -> RunningModel | None:
    """Return the entry of *running* for *model*, which may be loaded under another of its names."""
    same_digest = (entry for entry in running if entry["digest"] == model["digest"])
    return find_model(running, model["name"]) or next(same_digest, None)


def memory_of(model: RunningModel) -> Memory:
    """Return the memory that *model* takes, and when the model leaves it."""
    return {
        "size_vram": model["size_vram"],
        "gpu_percent": model["gpu_percent"],
        "expires_at": model["expires_at"],
        "forever": model["forever"],
    }

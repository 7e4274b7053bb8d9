"""How a model is started: its files, its context window, how many answers at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engine.models import details
from app.engine.runners.child import LoadError

if TYPE_CHECKING:
    from pathlib import Path

    from app import gguf
    from app.engine.gojson import Object
    from app.engine.models.store import Model, ModelStore

DEFAULT_CONTEXT = 4096
DEFAULT_PARALLEL = 4
_MAX_CACHE_BYTES = 2 << 30  # fewer answers at once rather than more memory than this

# What llama.cpp's built-in templates hold, by which one is chosen for weights without a template of their own
_TEMPLATES = {
    "<|start_header_id|>": "llama3",
    "<start_of_turn>": "gemma",
    "<|im_start|>": "chatml",
    "[INST]": "mistral-v3",
    "<|user|>": "zephyr",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """What a runner is to load; *size* is the memory that it takes, in bytes."""

    path: Path
    projector: Path | None
    num_ctx: int
    parallel: int
    embedding: bool
    chat_template: str
    size: int

    def order(self, alias: str) -> Object:
        """Build the line that the runner reads."""
        return {
            "path": str(self.path),
            "projector": str(self.projector or ""),
            "num_ctx": self.num_ctx,
            "parallel": self.parallel,
            "embedding": self.embedding,
            "chat_template": self.chat_template,
            "alias": alias,
        }


def plan(store: ModelStore, model: Model, num_ctx: int | None = None) -> Launch:
    """Work out how *model* is started.

    :raises FileNotFoundError: when its weights are gone
    :raises LoadError: when they are damaged, in Ollama's words
    """
    manifest = model.manifest
    try:
        header = details.header_of(store, manifest)
        header.check_complete()
    except ValueError as exc:
        raise LoadError(str(exc)) from exc
    if manifest.layer("adapter"):
        raise LoadError("this engine does not run models with an adapter")
    weights, projector = manifest.layer("model"), manifest.layer("projector")
    if weights is None:
        raise LoadError("the model has no weights that this engine can run")
    context = _context(header, details.parameters_of(store, manifest), num_ctx)
    parallel = _parallel(header, context)
    return Launch(
        path=store.blob_path(weights.digest),
        projector=store.blob_path(projector.digest) if projector else None,
        num_ctx=context,
        parallel=parallel,
        embedding=header.of_architecture("pooling_type") is not None,
        chat_template=_chat_template(header, store.read_text(manifest.layer("template"))),
        size=weights.size + cache_bytes(header, context * parallel),
    )


def _context(header: gguf.Header, parameters: Object, num_ctx: int | None) -> int:
    """Choose the window: as asked, else the model's, else the environment's."""
    asked = num_ctx or parameters.get("num_ctx") or _environment("OLLAMA_CONTEXT_LENGTH")
    wanted = asked if isinstance(asked, int) and asked > 0 else DEFAULT_CONTEXT
    trained = header.integer("context_length")
    return min(wanted, trained) if trained else wanted


def _parallel(header: gguf.Header, context: int) -> int:
    """Choose how many answers at once: each has a whole window of its own."""
    if wanted := _environment("OLLAMA_NUM_PARALLEL"):
        return wanted
    affordable = _MAX_CACHE_BYTES // max(cache_bytes(header, context), 1)
    return max(1, min(DEFAULT_PARALLEL, affordable))


def cache_bytes(header: gguf.Header, tokens: int) -> int:
    """Estimate the memory of *tokens* in the 16-bit key and value cache."""
    heads = header.integer("attention.head_count") or 1
    width = header.integer("embedding_length") // heads
    keys = header.integer("attention.key_length") or width
    values = header.integer("attention.value_length") or width
    kept_heads = header.integer("attention.head_count_kv") or heads
    return tokens * header.integer("block_count") * kept_heads * (keys + values) * 2


def _chat_template(header: gguf.Header, template: str) -> str:
    """Name llama.cpp's template; empty where the weights bring their own."""
    if header.metadata.get("tokenizer.chat_template"):
        return ""
    return next((name for mark, name in _TEMPLATES.items() if mark in template), "")


def _environment(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0

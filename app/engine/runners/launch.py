"""The parameters of a runner: the model's files, its context window, the number of parallel answers."""

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
_MAX_CACHE_BYTES = 2 << 30  # a larger cache would be needed: then fewer parallel answers

# A text in Ollama's template -> llama.cpp's built-in template, for weights without a chat template.
_TEMPLATES = {
    "<|start_header_id|>": "llama3",
    "<start_of_turn>": "gemma",
    "<|im_start|>": "chatml",
    "[INST]": "mistral-v3",
    "<|user|>": "zephyr",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters of a runner; *size* is an estimate of its memory in bytes."""

    path: Path
    projector: Path | None
    num_ctx: int
    parallel: int
    embedding: bool
    chat_template: str
    size: int

    def order(self, alias: str) -> Object:
        """Return the order for the runner, which names the model *alias* in its answers."""
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
    """Return the parameters for a runner of *model*.

    :raises FileNotFoundError: when the weights are gone
    :raises LoadError: when the weights are damaged, or the engine cannot run them
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
    """Choose the window: *num_ctx*, the model's or OLLAMA_CONTEXT_LENGTH; at most the trained length."""
    asked = num_ctx or parameters.get("num_ctx") or _environment("OLLAMA_CONTEXT_LENGTH")
    wanted = asked if isinstance(asked, int) and asked > 0 else DEFAULT_CONTEXT
    trained = header.integer("context_length")
    return min(wanted, trained) if trained else wanted


def _parallel(header: gguf.Header, context: int) -> int:
    """Choose the number of parallel answers; each needs a window of its own in the cache."""
    if wanted := _environment("OLLAMA_NUM_PARALLEL"):
        return wanted
    affordable = _MAX_CACHE_BYTES // max(cache_bytes(header, context), 1)
    return max(1, min(DEFAULT_PARALLEL, affordable))


def cache_bytes(header: gguf.Header, tokens: int) -> int:
    """Return the bytes that *tokens* take in the 16-bit KV cache."""
    heads = header.integer("attention.head_count") or 1
    width = header.integer("embedding_length") // heads
    keys = header.integer("attention.key_length") or width
    values = header.integer("attention.value_length") or width
    kept_heads = header.integer("attention.head_count_kv") or heads
    return tokens * header.integer("block_count") * kept_heads * (keys + values) * 2


def _chat_template(header: gguf.Header, template: str) -> str:
    """Return the name of llama.cpp's template; empty when the weights have a template, or none fits."""
    if header.metadata.get("tokenizer.chat_template"):
        return ""
    return next((name for mark, name in _TEMPLATES.items() if mark in template), "")


def _environment(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0

"""Compute the memory that a model needs, from the header of its weights; read the memory that is free."""

from __future__ import annotations

from pathlib import Path

from app.gguf import Header

_BYTES_PER_VALUE = 2  # of the KV cache: 16-bit floats, unless OLLAMA_KV_CACHE_TYPE is set
_ROUGHLY = 1.2  # the estimate, as a multiple of the weights, when the header does not say enough


def needed_bytes(weights: int, header: Header | None, num_ctx: int) -> tuple[int, bool]:
    """Return the bytes for *weights* and a cache of *num_ctx* tokens, and whether they are an estimate."""
    cache = kv_cache_bytes(header, num_ctx) if header else None
    return (int(weights * _ROUGHLY), True) if cache is None else (weights + cache, False)


def kv_cache_bytes(header: Header, num_ctx: int) -> int | None:
    """Return the bytes of the KV cache; None when the *header* lacks the values for that."""
    if not any(key.startswith("tokenizer.") for key in header.metadata):
        return None  # the header is cut off: the tokenizer's keys come after the keys that are needed here
    layers, heads = header.integer("block_count"), header.integer("attention.head_count")
    head_size = header.integer("attention.key_length")
    if not head_size and heads > 0:
        head_size = header.integer("embedding_length") // heads
    cached = header.of_architecture("attention.head_count_kv") or heads
    total = _sum(cached, layers)  # the heads of all layers; some models have another number for each layer
    if min(total, head_size) <= 0:
        return None
    # Twice: for keys and for values.
    return 2 * num_ctx * total * head_size * _BYTES_PER_VALUE


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the free memory of this machine in bytes; None when the system does not tell it."""
    try:
        lines = meminfo.read_text("ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _sum(value: object, layers: int) -> int:
    if isinstance(value, list):
        return sum(entry for entry in value if isinstance(entry, int))
    return value * layers if isinstance(value, int) else 0

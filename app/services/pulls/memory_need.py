"""The memory that a model needs, from the header of its weights, and the memory that is free."""

from __future__ import annotations

from pathlib import Path

from app.gguf import Header

_BYTES_PER_VALUE = 2  # the KV cache holds 16-bit floats, unless Ollama was told otherwise
_ROUGHLY = 1.2  # multiple of the weights, where nothing else is known


def needed_bytes(weights: int, header: Header | None, num_ctx: int) -> tuple[int, bool]:
    """Return the bytes that *weights* and the cache of *num_ctx* tokens need, and whether that is a guess."""
    cache = kv_cache_bytes(header, num_ctx) if header else None
    return (int(weights * _ROUGHLY), True) if cache is None else (weights + cache, False)


def kv_cache_bytes(header: Header, num_ctx: int) -> int | None:
    """Return the bytes of the KV cache; None where the *header* does not say enough."""
    if not any(key.startswith("tokenizer.") for key in header.metadata):
        return None  # it is cut off too early: the tokenizer comes after the keys that are needed
    layers, heads = header.integer("block_count"), header.integer("attention.head_count")
    head_size = header.integer("attention.key_length")
    if not head_size and heads > 0:
        head_size = header.integer("embedding_length") // heads
    cached = header.of_architecture("attention.head_count_kv") or heads
    total = _sum(cached, layers)  # over all layers; in some models each has its own number
    if min(total, head_size) <= 0:
        return None
    return 2 * num_ctx * total * head_size * _BYTES_PER_VALUE


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the free memory of this machine; None where the system does not say."""
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

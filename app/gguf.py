"""Read the header of a GGUF file: its metadata and the list of its tensors.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The ``gguf`` package takes 2.3 s for
even SmolLM2, because it makes an object of every token of the vocabulary, and it needs numpy. This reader
skips the large arrays. A malformed file raises ValueError, and takes no more memory than its own size.
"""

from __future__ import annotations

import math
import mmap
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
_FLOAT_MAX = 3.4e38
_MAX_DIMENSIONS = 4
_MAX_DEPTH = 4  # of arrays in arrays: a malformed file must not exhaust the stack

# Tensor types: name, elements in a block, bytes of a block (ggml.c, type_traits)
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """The entry of one tensor; *end* is the offset in the file where its data ends."""

    name: str
    type: str
    shape: tuple[int, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF file, with ``None`` for a skipped array, and its tensors in the file's order."""

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    file_size: int

    @property
    def architecture(self) -> str:
        """The family of the model, such as ``llama``."""
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def parameter_count(self) -> int:
        """The number of weights."""
        count = self.metadata.get("general.parameter_count")
        return count if count else sum(math.prod(tensor.shape) for tensor in self.tensors)

    def of_architecture(self, key: str) -> Any:
        """Look up a *key* below the architecture's name: ``block_count`` for ``llama.block_count``."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def integer(self, key: str) -> int:
        """Look up an integer below the architecture's name; 0 when it is absent, or a list by layer."""
        value = self.of_architecture(key)
        return value if isinstance(value, int) else 0

    def check_complete(self) -> None:
        """Raise ValueError, with Ollama's own message, when the file ends before its last tensor."""
        for tensor in self.tensors:
            if tensor.end > self.file_size:
                raise ValueError(
                    f'tensor "{tensor.name}" offset+size ({tensor.end}) exceeds file size ({self.file_size})'
                )


class _Cursor:
    """Reads forward through *data*, and checks every length against the rest of the data."""

    def __init__(self, data: mmap.mmap | bytes, *, arrays: bool) -> None:
        self._data = data
        self._arrays = arrays
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        if count > len(self._data) - self.position:
            raise ValueError("unexpected EOF")
        start = self.position
        self.position += count
        return self._data[start : self.position]

    def scalar(self, code: str) -> Any:
        """Return one number or bool; *code* is its format in :mod:`struct`."""
        value = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]
        return _readable(value) if code in "fd" else value

    def string(self) -> str:
        """Return one length-prefixed string."""
        return self.take(self.scalar("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """Return one metadata value; *kind* is the type's number in GGUF."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(depth)
        if kind not in _SCALARS:
            raise ValueError(f"unknown metadata type {kind}")
        return self.scalar(_SCALARS[kind])

    def _array(self, depth: int) -> list[Any] | None:
        kind, count = self.scalar("I"), self.scalar("Q")
        if depth >= _MAX_DEPTH or count > len(self._data) - self.position:
            raise ValueError("unexpected EOF")
        if kind in _SCALARS:
            raw = self.take(count * struct.calcsize(f"<{_SCALARS[kind]}"))
            return list(struct.unpack(f"<{count}{_SCALARS[kind]}", raw)) if self._arrays else None
        if kind == _STRING and not self._arrays:
            self._skip_strings(count)
            return None
        values = [self.value(kind, depth + 1) for _ in range(count)]
        return values if self._arrays else None

    def _skip_strings(self, count: int) -> None:
        """Skip *count* strings, without a call for each: a vocabulary has 100,000 of them."""
        position, length = self.position, _LENGTH.unpack_from
        try:
            for _ in range(count):
                position += _LENGTH.size + length(self._data, position)[0]
        except (struct.error, OverflowError) as exc:
            raise ValueError("unexpected EOF") from exc
        self.position = position
        self.take(0)  # raises when the last string goes past the end


def _readable(value: float) -> float | None:
    """Return the shortest number that is the same 32-bit float: 1e-05, not 9.999999747378752e-06."""
    if not math.isfinite(value):
        return None  # JSON has neither NaN nor Infinity
    short = float(f"{value:.7g}")
    if abs(value) > _FLOAT_MAX:
        return value
    return short if struct.pack("<f", short) == struct.pack("<f", value) else value


def read(path: Path, *, arrays: bool = False) -> Header:
    """Read the header of the file at *path*.

    :param arrays: read the arrays, too, such as the vocabulary
    :raises ValueError: when the file is not GGUF, is cut off, or is malformed
    :raises OSError: when the file cannot be read
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("invalid file magic")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse(data, arrays=arrays)


def read_blob(path: Path) -> Header:
    """Read the header of a blob as :func:`read` does, and cache it until the file changes."""
    stat = path.stat()
    return _read_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_once(path: Path, size: int, modified_ns: int) -> Header:  # noqa: ARG001
    return read(path)


def parse(data: mmap.mmap | bytes, *, arrays: bool = False) -> Header:
    """Parse the header of a GGUF file; *data* is the whole file.

    :raises ValueError: when the data is not GGUF, is cut off, or is malformed
    """
    cursor = _Cursor(data, arrays=arrays)
    tensor_count, entry_count = _counts(cursor)
    metadata = dict(_metadata(cursor, entry_count))
    entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
    start = _aligned(cursor.position, metadata.get("general.alignment"))
    tensors = tuple(_tensor(start, *entry) for entry in entries)
    return Header(metadata, tensors, len(data))


def parse_start(data: bytes) -> Header:
    """Parse the beginning of a GGUF file: the metadata entries in *data*, with arrays, and no tensors.

    :raises ValueError: when *data* is not the beginning of a GGUF file
    """
    cursor = _Cursor(data, arrays=True)
    metadata: dict[str, Any] = {}
    entries = _metadata(cursor, _counts(cursor)[1])
    with suppress(ValueError):  # data ends within an entry; the entries before it are kept
        metadata.update(entries)
    return Header(metadata, (), len(data))


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """Return the number of tensors and of metadata entries."""
    if cursor.take(4) != b"GGUF":
        raise ValueError("invalid file magic")
    version = cursor.scalar("I")
    if version not in {2, 3}:
        raise ValueError(f"unsupported GGUF version {version}")
    return cursor.scalar("Q"), cursor.scalar("Q")


def _metadata(cursor: _Cursor, count: int) -> Iterator[tuple[str, Any]]:
    for _ in range(count):
        key = cursor.string()
        yield key, cursor.value(cursor.scalar("I"))


def _tensor_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    dimensions = cursor.scalar("I")
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f'tensor "{name}" has {dimensions} dimensions')
    shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
    return name, shape, cursor.scalar("I"), cursor.scalar("Q")


def _tensor(start: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Tensor:
    label, block, size = _TYPES.get(kind, ("unknown", 1, 0))
    return Tensor(name, label, shape, start + offset + math.prod(shape) // block * size)


def _aligned(position: int, alignment: Any) -> int:
    step = alignment if isinstance(alignment, int) and alignment > 0 else 32
    return -(-position // step) * step

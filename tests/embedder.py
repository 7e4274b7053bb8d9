"""An embedding model for tests: the bundled model, with a pooling type in its metadata."""

from __future__ import annotations

import struct

from tests.engine.process import EngineProcess
from tests.registry import digest_of, smollm2_file

WIDTH = 576
"""The length of its vectors."""

_STRING, _UINT32, _MEAN = 8, 4, 1
_ALIGNMENT = 32


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def embedder_file() -> bytes:
    """Return the bundled weights with ``llama.pooling_type`` in their metadata."""
    raw = smollm2_file().read_bytes()
    version, tensors, entries = struct.unpack_from("<IQQ", raw, 4)
    pooling = _text(b"llama.pooling_type") + struct.pack("<II", _UINT32, _MEAN)
    filler = _text(b"test.filler") + struct.pack("<I", _STRING)
    # The tensors must stay aligned, so the added metadata is filled up to a multiple of the alignment.
    missing = -(len(pooling) + len(filler) + 8) % _ALIGNMENT
    added = pooling + filler + _text(b"x" * missing)
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries + 2) + added + raw[24:]


def install(engine: EngineProcess, name: str) -> None:
    """Upload the weights to *engine*, and create the model *name* from them."""
    weights = embedder_file()
    digest = digest_of(weights)
    uploaded = engine.request("POST", f"/api/blobs/{digest}", data=weights)
    assert uploaded.status_code in {200, 201}, uploaded.text
    body = {"model": name, "files": {"model.gguf": digest}, "stream": False}
    assert engine.post("/api/create", body).json() == {"status": "success"}

"""A model's manifest: the list of its layers, as Ollama and its registry write it.

The format is Docker's: https://distribution.github.io/distribution/spec/manifest-v2-2/.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.ollama.image."  # + model, template, system, params, license ...
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_SIZE = 2**53
"""The largest size of a layer, in bytes; the sum of a thousand such layers still fits a BIGINT column."""


class CorruptManifestError(ValueError):
    """The manifest is malformed: the blobs that it uses are not known."""


def digest_of(content: bytes) -> str:
    """Return ``sha256:<64 hex digits>`` of *content*."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Layer:
    """One blob of a model: its weights, template, parameters, licence or configuration."""

    digest: str
    size: int
    media_type: str

    @classmethod
    def parse(cls, entry: Any) -> Layer:
        """Check an *entry* of a manifest; a missing media type becomes an empty one.

        :raises CorruptManifestError: when the entry is not a layer
        """
        if not isinstance(entry, dict):
            raise CorruptManifestError("a layer is not an object")
        digest, size, kind = entry.get("digest"), entry.get("size"), entry.get("mediaType")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise CorruptManifestError("a layer's digest is not sha256:<64 hex digits>")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
            raise CorruptManifestError("a layer's size is not a number of bytes")
        return cls(digest, size, kind if isinstance(kind, str) else "")

    @property
    def kind(self) -> str:
        """The role of the blob: `model`, `template`, `params`, `license` ..., or `config`."""
        if not self.media_type.startswith(LAYER_TYPE):
            return "config"
        return self.media_type.removeprefix(LAYER_TYPE).partition(";")[0]

    def to_json(self) -> dict[str, Any]:
        """Return the layer as an entry of a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest; ``raw`` holds its bytes, of which the digest is made."""

    config: Layer
    layers: tuple[Layer, ...]
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Parse and check the bytes of a manifest.

        :raises CorruptManifestError: when the bytes are not a manifest
        """
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as exc:
            raise CorruptManifestError("it is not JSON") from exc
        if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
            raise CorruptManifestError("it has no layers")
        layers = tuple(Layer.parse(entry) for entry in document["layers"])
        return cls(Layer.parse(document.get("config")), layers, raw)

    @classmethod
    def build(cls, config: Layer, layers: Iterable[Layer]) -> Manifest:
        """Make the manifest of *layers*, with the JSON encoding of Go: Ollama's digest is of these bytes."""
        layers = tuple(layers)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        return cls(config, layers, json.dumps(document, separators=(",", ":")).encode())

    @property
    def digest(self) -> str:
        """The digest of the manifest's bytes, which Ollama shows as the digest of the model."""
        return digest_of(self.raw)

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """All layers and the config, in the order in which Ollama pulls them."""
        return (*self.layers, self.config)

    @property
    def size(self) -> int:
        """Bytes of all layers and the config."""
        return sum(blob.size for blob in self.blobs)

    def layer(self, kind: str) -> Layer | None:
        """Find the first layer of an Ollama *kind* (``model``, ``template``, ``params`` ...)."""
        media_type = LAYER_TYPE + kind
        return next((entry for entry in self.layers if entry.media_type == media_type), None)

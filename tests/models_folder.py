"""A models folder in Ollama's layout, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.registry import digest_of


class Folder:
    """A models folder at *path*: ``Folder(path).add("base:latest", config, weights)``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs").mkdir(parents=True)

    def blob(self, content: bytes) -> Path:
        path = self.path / "blobs" / digest_of(content).replace(":", "-")
        path.write_bytes(content)
        return path

    def manifest(self, name: str) -> Path:
        model, _, tag = name.partition(":")
        return self.path / "manifests" / "registry.ollama.ai" / "library" / model / tag

    def add(self, name: str, *contents: bytes) -> dict[str, Any]:
        """Install a model with the *contents* of its config and layers; return its entry of ``/api/tags``."""
        config, *layers = [
            {"mediaType": "application/x", "digest": digest_of(c), "size": self.blob(c).stat().st_size}
            for c in contents
        ]
        raw = json.dumps({"config": config, "layers": layers}).encode()
        path = self.manifest(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        digest, size = digest_of(raw).removeprefix("sha256:"), sum(map(len, contents))
        return {"name": name, "size": size, "modified_at": "2026-11-22T14:03:42Z", "digest": digest}

"""Read Ollama's models folder, if it is on this machine. Nothing here writes to the folder.

It holds::

    manifests/<host>/<namespace>/<model>/<tag>   JSON: the layers of a model
    blobs/sha256-<hex>                           a layer
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.config import is_loopback
from app.manifest import DIGEST, CorruptManifestError
from app.model_name import ModelName
from app.services.ollama.registry import MANIFEST_LIMIT, ManifestSummary
from app.services.ollama.service import OllamaService
from app.services.providers import Provider

log = logging.getLogger(__name__)

_SERVICE_FOLDER = Path("/usr/share/ollama/.ollama/models")  # of Ollama's service on Linux
_BLOCK = 512  # bytes, the unit of st_blocks


class LocalStore:
    """The models folder at *path*."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def find(
        cls, provider: Provider, environ: Mapping[str, str | None], listed: Collection[str] = ()
    ) -> LocalStore | None:
        """Return the models folder of the Ollama server at *provider*; None if it is not on this machine.

        :param environ: the environment; ``OLLAMA_MODELS`` names the folder, else it is in the home folder
        :param listed: digests of models that this server lists; a folder with none of them belongs to
            another Ollama server
        """
        if not is_loopback(urlsplit(provider.native_url).hostname or ""):
            return None
        for folder in _candidates(environ):
            store = cls(folder)
            if (folder / "manifests").is_dir() and (not listed or store.holds(listed)):
                return store
        return None

    def holds(self, digests: Collection[str]) -> bool:
        """Tell whether the folder has a model with one of *digests*."""
        return any(manifest.digest in digests for manifest in self.models().values())

    def models(self) -> dict[str, ManifestSummary]:
        """Return the manifests by the names that Ollama shows; leave out those that cannot be read."""
        return {
            str(name): manifest
            for name, path in self._entries()
            if (manifest := _read(name, path)) is not None
        }

    def has_blob(self, digest: str) -> bool:
        """Tell whether the blob *digest* is complete in the folder."""
        return bool(DIGEST.fullmatch(digest)) and self._blob(digest).is_file()

    def free_bytes(self) -> int:
        """Return the free bytes of the disk with the layers."""
        blobs = self.path / "blobs"  # may be on another disk than the manifests
        return shutil.disk_usage(blobs if blobs.is_dir() else self.path).free

    def _blob(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "-")

    def _entries(self) -> Iterator[tuple[ModelName, Path]]:
        for path in sorted((self.path / "manifests").glob("*/*/*/*")):
            host, namespace, model, tag = path.parts[-4:]
            try:
                yield ModelName.parse(f"{host}/{namespace}/{model}:{tag}"), path
            except ValueError:  # a temporary or hidden file is no manifest
                continue


class ModelFolders:
    """Finds the models folders of the Ollama servers on this machine.

    :param environ: the environment; ``OLLAMA_MODELS`` names the folder, else it is in the home folder
    """

    def __init__(self, environ: Mapping[str, str | None]) -> None:
        self._environ = environ

    def find(
        self, ollama: OllamaService, listed: Iterable[Mapping[str, Any]] | None = None
    ) -> LocalStore | None:
        """Return the models folder of *ollama*; None if it is not on this machine.

        :param listed: the models that *ollama* lists; None to ask for them
        """
        if LocalStore.find(ollama.provider, self._environ) is None:  # spares the request for the list
            return None
        listed = ollama.list()["models"] if listed is None else listed
        return LocalStore.find(ollama.provider, self._environ, [model["digest"] for model in listed])


def _candidates(environ: Mapping[str, str | None]) -> Iterator[Path]:
    if named := environ.get("OLLAMA_MODELS"):
        yield Path(named).expanduser()
    if home := environ.get("HOME") or environ.get("USERPROFILE"):
        yield Path(home) / ".ollama" / "models"
    if os.name == "posix":
        yield _SERVICE_FOLDER


def _read(name: ModelName, path: Path) -> ManifestSummary | None:
    """Return the manifest at *path*; None if it is gone or damaged."""
    try:
        with path.open("rb") as file:
            return ManifestSummary.parse(file.read(MANIFEST_LIMIT))
    except FileNotFoundError:
        return None
    except (OSError, CorruptManifestError) as exc:
        log.warning("the manifest of %s cannot be read (%s)", name, type(exc).__name__)
        return None


def partial_bytes(blobs: Path, digest: str = "sha256:") -> int:
    """Return the bytes that unfinished downloads take in the folder *blobs*: that of *digest*, or all."""
    return sum(_taken(path) for path in blobs.glob(f"{digest.replace(':', '-')}*-partial*"))


def _taken(path: Path) -> int:
    """Return the bytes that a file takes on the disk: Ollama makes partial files sparse."""
    try:
        stat = path.stat()
    except OSError:  # the download has ended, and Ollama renamed the file
        return 0
    blocks = getattr(stat, "st_blocks", None)  # Windows has none
    return stat.st_size if blocks is None else min(stat.st_size, blocks * _BLOCK)

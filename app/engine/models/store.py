"""The models on disk, in Ollama's layout, so that a later Ollama finds them::

manifests/<host>/<namespace>/<model>/<tag>   JSON: the layers that make up a model
blobs/sha256-<hex>                           a layer; sha256-<hex>-partial during its download
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from app.manifest import DIGEST, LAYER_TYPE, CorruptManifestError, Layer, Manifest, digest_of
from app.model_name import ModelName

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_PARTIAL = re.compile(r"sha256-[0-9a-f]{64}-partial")
MAX_TEXT = 16 << 20  # no template or licence is longer


@dataclass(frozen=True, slots=True)
class Model:
    """An installed model: its name, in upper and lower case as on disk, and its manifest."""

    name: ModelName
    manifest: Manifest
    modified_ns: int


class ModelStore:
    """The models folder; safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifests = root / "manifests"
        self._blobs = root / "blobs"
        self._write_lock = threading.Lock()  # else a prune could delete a blob of a new manifest
        self._pinned: Counter[str] = Counter()
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._manifests.mkdir(parents=True, exist_ok=True)

    def blob_path(self, digest: str) -> Path:
        """Return the path of the blob *digest*.

        :raises ValueError: when *digest* is not a digest
        """
        if not DIGEST.fullmatch(digest):
            raise ValueError("invalid digest format")
        return self._blobs / digest.replace(":", "-")

    def partial_path(self, digest: str) -> Path:
        """Return the path of the blob *digest* during its download."""
        path = self.blob_path(digest)
        return path.with_name(path.name + "-partial")

    def partial_paths(self) -> list[Path]:
        """List the partial files, also those of which only the lock or Ollama's notes are left."""
        found = (_PARTIAL.match(path.name) for path in self._blobs.iterdir())
        return sorted({self._blobs / match[0] for match in found if match})

    def temporary_paths(self) -> list[Path]:
        """List the files that are uploaded or written just now, and those that a kill has left."""
        return [*self._blobs.glob("upload-*"), *self.root.rglob(".new-*")]

    def has_blob(self, layer: Layer) -> bool:
        """Tell whether the blob of *layer* is complete: it has the size that the manifest says."""
        path = self.blob_path(layer.digest)
        return path.is_file() and path.stat().st_size == layer.size

    def read_text(self, layer: Layer | None) -> str:
        """Read a small text layer; empty for None, and for a layer over 16 MiB."""
        if layer is None or layer.size > MAX_TEXT:
            return ""
        return self.blob_path(layer.digest).read_text("utf-8", "replace")

    def models(self) -> list[Model]:
        """List the installed models, newest first; a model with a corrupt manifest is left out and logged."""
        found = [model for entry in self._entries() if (model := self._load_or_log(*entry))]
        return sorted(found, key=lambda model: model.modified_ns, reverse=True)

    def find(self, name: ModelName) -> Model | None:
        """Find an installed model; upper and lower case are the same."""
        path = self._manifest_path(name)
        if not path.is_file():
            match = self.installed_name(name)
            if match is None:
                return None
            name, path = match, self._manifest_path(match)
        return self._load_or_log(name, path)

    def installed_name(self, name: ModelName) -> ModelName | None:
        """Return the installed *name* in upper and lower case as on disk; None when it is not installed."""
        return next((entry for entry, _ in self._entries() if entry.key == name.key), None)

    def write(self, name: ModelName, manifest: Manifest) -> None:
        """Install *manifest* as *name*, atomically; it replaces the former model of that name."""
        path = self._manifest_path(self.installed_name(name) or name)
        with self._write_lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, manifest.raw)

    def copy(self, source: Model, destination: ModelName) -> None:
        """Give *source* a second name."""
        self.write(destination, source.manifest)

    def delete(self, model: Model) -> None:
        """Delete a model, and the blobs that no other model uses."""
        path = self._manifest_path(model.name)
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:3]:
            with suppress(OSError):  # the folder still holds another model
                folder.rmdir()
        self.prune(model.manifest)

    def prune(self, manifest: Manifest) -> None:
        """Delete the blobs of a former *manifest* that no installed model uses.

        While any manifest is corrupt, no blob is deleted: the corrupt manifest may use it.
        """
        with self._write_lock:
            try:
                used = {
                    blob.digest
                    for name, path in self._entries()
                    for blob in self._load(name, path).manifest.blobs
                }
            except (CorruptManifestError, OSError) as exc:
                log.warning("unused layers are kept: a manifest cannot be read (%s)", exc)
                return
            for blob in manifest.blobs:
                if blob.digest not in used and not self._pinned[blob.digest]:
                    with suppress(OSError):  # Windows: a runner has it open
                        self.blob_path(blob.digest).unlink(missing_ok=True)

    @contextmanager
    def pinned(self, manifest: Manifest) -> Iterator[None]:
        """Protect the blobs of *manifest* from `prune` while the block writes the manifest."""
        digests = [blob.digest for blob in manifest.blobs]
        with self._write_lock:
            self._pinned.update(digests)
        try:
            yield
        finally:
            with self._write_lock:
                self._pinned -= Counter(digests)

    def add_text(self, kind: str, text: str) -> Layer:
        """Store *text* as a layer of an Ollama *kind*, such as ``template``."""
        return self.add_bytes(LAYER_TYPE + kind, text.encode())

    def add_bytes(self, media_type: str, content: bytes) -> Layer:
        """Store a small blob; return its layer."""
        layer = Layer(digest_of(content), len(content), media_type)
        if not self.has_blob(layer):
            write_atomically(self.blob_path(layer.digest), content)
        return layer

    def add_stream(self, digest: str, stream: IO[bytes]) -> None:
        """Store an uploaded blob.

        :raises ValueError: with Ollama's message, when the content does not have this *digest*
        """
        target, sha256 = self.blob_path(digest), hashlib.sha256()
        descriptor, temporary = tempfile.mkstemp(dir=self._blobs, prefix="upload-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                while chunk := stream.read(_CHUNK):
                    sha256.update(chunk)
                    file.write(chunk)
                _sync(file)
            if (actual := f"sha256:{sha256.hexdigest()}") != digest:
                raise ValueError(f'digest mismatch, expected "{digest}", got "{actual}"')
            Path(temporary).replace(target)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _manifest_path(self, name: ModelName) -> Path:
        return self._manifests / name.host / name.namespace / name.model / name.tag

    def _entries(self) -> Iterator[tuple[ModelName, Path]]:
        for path in sorted(self._manifests.glob("*/*/*/*")):
            host, namespace, model, tag = path.parts[-4:]
            with suppress(ValueError):  # a temporary or hidden file
                yield ModelName.parse(f"{host}/{namespace}/{model}:{tag}"), path

    def _load_or_log(self, name: ModelName, path: Path) -> Model | None:
        try:
            return self._load(name, path)
        except FileNotFoundError:
            return None
        except (CorruptManifestError, OSError) as exc:
            log.warning("manifest of %s left out: %s", name, exc)
            return None

    @staticmethod
    def _load(name: ModelName, path: Path) -> Model:
        return Model(name, Manifest.parse(path.read_bytes()), path.stat().st_mtime_ns)


def disk_trouble(exc: OSError, what: object = "the models folder") -> str:
    """Return what is wrong with the disk, in the words of Go (``no space left on device``).

    :param what: the file or folder, where *exc* does not know it
    """
    return f"{exc.filename or what}: {(exc.strerror or 'the disk failed').lower()}"


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file, which is not read into memory at once."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return f"sha256:{sha256.hexdigest()}"


def write_atomically(path: Path, content: bytes) -> None:
    """Write *path* so that after a crash it is the old file or the complete new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            _sync(file)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())

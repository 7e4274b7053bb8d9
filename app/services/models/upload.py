"""Receive a model file from a client, check it in a temporary file, and send it to Ollama."""

from __future__ import annotations

import errno
import hashlib
import mmap
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from app import gguf
from app.errors import DiskFull, InvalidUpload
from app.services.ollama import OllamaServers
from app.storage.folder import UPLOAD_PREFIX
from app.storage.json_file import file_failed

_CHUNK = 1 << 20  # bytes
_MAGIC = b"GGUF"


class Upload(Protocol):
    """The body of a request."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes; ``b""`` at the end."""


class UploadService:
    """Receives model files, and sends them to Ollama.

    :param folder: holds the temporary file, which has no name and so disappears with the process
    """

    def __init__(self, ollamas: OllamaServers, folder: Path) -> None:
        self._ollamas = ollamas
        self._folder = folder

    def push(
        self,
        upload: Upload,
        size: int | None,
        digest: str | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> str:
        """Send a GGUF file to Ollama, and return its digest.

        :param size: the file's bytes, from the request's ``Content-Length``
        :param digest: the file's digest, if the client sent it
        :param check: called after the whole file was received, before it is sent to Ollama
        :raises InvalidUpload: when the file is incomplete, has another digest, or is no GGUF model
        :raises DiskFull: when the file does not fit on the disk
        :raises StorageFailed: when the data folder cannot be written
        """
        start = _read(upload, len(_MAGIC))
        if start != _MAGIC:
            raise InvalidUpload(
                "The file is not a GGUF model: it does not begin with 'GGUF'.",
                hint="Convert the model to GGUF first, or send the file itself as the body.",
                details={"reason": "not_gguf"},
            )
        with self._open(size or 0) as file:
            actual = self._receive(start, upload, file)
            _check(file.tell(), size, actual, digest)
            _check_complete(file)
            check()
            ollama = self._ollamas.main()
            if not ollama.has_blob(actual):
                file.seek(0)
                ollama.push_blob(actual, file)
        return actual

    def _open(self, size: int) -> IO[bytes]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_room(size)
            return tempfile.TemporaryFile(dir=self._folder, prefix=UPLOAD_PREFIX)
        except OSError as exc:
            raise file_failed("The data folder", exc) from exc

    def _receive(self, start: bytes, upload: Upload, file: IO[bytes]) -> str:
        sha256, chunk = hashlib.sha256(), start
        received = 0
        while chunk:
            sha256.update(chunk)
            received += len(chunk)
            try:
                file.write(chunk)
                file.flush()  # so that a full disk shows itself here
            except OSError as exc:
                is_full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
                failure = self._disk_full(received) if is_full else file_failed("The data folder", exc)
                raise failure from exc
            chunk = _read(upload, _CHUNK)
        return f"sha256:{sha256.hexdigest()}"

    def _check_room(self, size: int) -> None:
        if shutil.disk_usage(self._folder).free < size:
            raise self._disk_full(size)

    def _disk_full(self, size: int) -> DiskFull:
        return DiskFull(
            "The file does not fit on the disk of this server's data folder.",
            hint=f"Free some space, or move the folder with BACKEND_DATA_DIR: {self._folder}",
            details={"bytes": size, "free_bytes": shutil.disk_usage(self._folder).free},
        )


def _read(upload: Upload, size: int) -> bytes:
    """Return the next *size* bytes of *upload*; fewer at its end."""
    parts = []
    try:
        while size and (part := upload.read(size)):
            parts.append(part)
            size -= len(part)
    except OSError as exc:  # the client left
        raise _truncated() from exc
    return b"".join(parts)


def _check(received: int, size: int | None, actual: str, digest: str | None) -> None:
    if size is not None and received != size:
        raise _truncated()
    if digest is not None and digest != actual:
        raise InvalidUpload(
            "The file does not have the digest of the request: its SHA-256 differs.",
            hint="Send the file again, or leave out the digest.",
            details={"reason": "digest_mismatch", "expected": digest, "actual": actual},
        )


def _check_complete(file: IO[bytes]) -> None:
    """Check that *file* holds all its tensors: Ollama would accept an incomplete file."""
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            gguf.parse(data).check_complete()
    except ValueError as exc:
        raise _truncated() from exc


def _truncated() -> InvalidUpload:
    return InvalidUpload(
        "The upload ended before the file was complete.",
        hint="Send the file again; no part of it was kept.",
        details={"reason": "truncated"},
    )

"""Store a JSON object in a file that several processes read and change."""

from __future__ import annotations

import errno
import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.errors import StorageFailed
from app.storage.damaged import set_aside
from app.storage.folder import PRIVATE

log = logging.getLogger(__name__)

Json = dict[str, Any]

_LOCK_LIMIT = 10.0  # seconds


class JsonFile:
    """The JSON object in the file *path*, which only its owner can read (mode 0600).

    A change is written to a temporary file, synced, and renamed under a lock, so that a reader sees the old
    object or the new one. A damaged file is never overwritten: it reads as an empty object, :attr:`damage`
    describes the damage, and the first change renames the damaged file.

    :param check: raises ``ValueError`` for an object that cannot be used
    """

    def __init__(self, path: Path, check: Callable[[Json], object]) -> None:
        self.path = path
        self._check = check
        self.damage = ""
        self._name = str(path)  # a look at a Path takes longer
        self._absent: Json = {}
        self._cached: tuple[tuple[int, int, int], Json] | None = None
        self._reading = threading.Lock()

    def read(self) -> Json:
        """Return the object: the same one until the file changes. The caller must not change it.

        :raises StorageFailed: when the file cannot be read
        """
        with self._reading:
            try:
                stat = os.stat(self._name)  # noqa: PTH116
            except FileNotFoundError:
                self._cached, self.damage = None, ""
                return self._absent
            except OSError as exc:
                raise file_failed(f"{self.path.name} in the data folder", exc) from exc
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._cached is None or self._cached[0] != stamp:
                self._cached = (stamp, self._parse())
            return self._cached[1]

    def update(self, change: Callable[[Json], None]) -> Json:
        """Apply *change* to a copy of the object and write it; write nothing when *change* raises.

        :raises StorageFailed: when the file cannot be read or written
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=_LOCK_LIMIT, mode=PRIVATE):
                data = json.loads(json.dumps(self.read()))
                change(data)
                self._keep_damaged()
                write_json(self.path, data)
        except (OSError, Timeout) as exc:
            raise file_failed(f"{self.path.name} in the data folder", exc) from exc
        return self.read()

    def _parse(self) -> Json:
        try:
            content = self.path.read_bytes()
        except IsADirectoryError:
            content = b""  # is damaged for sure
        except OSError as exc:  # may be temporary, so the file does not count as damaged
            raise file_failed(f"{self.path.name} in the data folder", exc) from exc
        try:
            data: Json = json.loads(content)
            self._check(data)
        except (ValueError, RecursionError):
            pass
        else:
            self.damage = ""
            return data
        self.damage = (
            f"{self.path} is damaged and is ignored. Repair the file, or remove it to start afresh; "
            "the next change renames it and starts a new one."
        )
        log.error(self.damage)
        return {}

    def _keep_damaged(self) -> None:
        if self.damage:
            set_aside(self.path)


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write *data* to the file *path*, which only its owner can read: a reader sees all of it or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # mkstemp makes it 0600; half characters of a model's text are kept, too.
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass") as file:
            json.dump(data, file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def file_failed(what: str, exc: OSError | Timeout) -> StorageFailed:
    """Return the error for a file or folder, *what*, that cannot be read or written."""
    if isinstance(exc, Timeout):
        reason, said, retry_after = "locked", "another process keeps it locked", 5
    elif exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        reason, said, retry_after = "full", "the disk is full", None
    else:
        reason, said, retry_after = "failed", exc.strerror or "the disk fails", 60
    return StorageFailed(
        f"{what} cannot be used: {said}.",
        hint="Check the folder's owner, permissions and free space, or set another one: BACKEND_DATA_DIR",
        details={"reason": reason},
        retry_after=retry_after,
    )


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk: else a crash could undo the rename."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Remove what failed pulls and uploads have left in the models folder, once it is a day old.

Several engines, and Ollama, may use one folder at the same time. A pull that runs holds the lock of the file
that it writes, and its engine renews the age of its other files.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from app.engine.models.store import ModelStore

log = logging.getLogger(__name__)

INTERVAL = 3600.0  # seconds between two looks
_DAY = 86_400.0  # seconds


def remove_leftovers(store: ModelStore, kept: Iterable[Path] = ()) -> None:
    """Remove the unfinished files to which nobody has written for a day.

    :param kept: the partial files of the pulls that run in this process; they get a new age, so that other
        engines see that they are in use
    """
    for path in kept:
        with suppress(OSError):
            os.utime(path)
    removed = [path.name for path in store.partial_paths() if _is_left(path) and _remove_partial(path)]
    for path in store.temporary_paths():
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _DAY:
                path.unlink()
                removed.append(path.name)
    if removed:
        log.info("removed unfinished files of former pulls and uploads: %s", ", ".join(removed))


def _files(partial: Path) -> list[Path]:
    """List the files of a download: the bytes so far, its lock, and Ollama's notes about its parts."""
    return list(partial.parent.glob(f"{partial.name}*"))


def _is_left(partial: Path, but: str = "") -> bool:
    """Tell whether no file of the download is younger than a day; do not look at the file *but*."""
    try:
        times = [path.lstat().st_mtime for path in _files(partial) if path.name != but]
    except OSError:  # one is gone: the download ends or goes on just now
        return False
    return time.time() - max(times, default=0) > _DAY


def _remove_partial(partial: Path) -> bool:
    lock = FileLock(f"{partial}.lock", timeout=0)
    try:
        with lock:
            if not _is_left(partial, but=f"{partial.name}.lock"):  # another engine has written meanwhile
                return False
            for path in _files(partial):
                path.unlink(missing_ok=True)
    except (Timeout, OSError):
        return False
    return True

"""Set damaged files aside, so that the program can go on and nothing is overwritten."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

_SIGNS = (
    "malformed",
    "not a database",
    "unsupported file format",
)  # parts of SQLite's messages about damaged files
_COMPANIONS = ("-wal", "-shm", "-journal")  # the files that SQLite keeps beside a database


def set_aside(path: Path) -> None:
    """Rename the damaged file *path* to ``<name>.damaged-<time>``."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    path.rename(kept)
    log.error("The damaged file was set aside as %s", kept)


def set_aside_damaged_database(path: Path) -> None:
    """Set the SQLite file *path* aside if it is damaged; only for one whose rows may be lost."""
    if not _is_damaged(path):
        return
    with FileLock(f"{path}.lock"):
        if _is_damaged(path):  # no other process was faster
            set_aside(path)
            for name in _COMPANIONS:
                path.with_name(path.name + name).unlink(missing_ok=True)


def _is_damaged(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.DatabaseError as exc:
        return any(sign in str(exc) for sign in _SIGNS)
    return bool(found[0] != "ok")

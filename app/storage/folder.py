"""The data folder: only its owner can read it, and nothing stays in it that a killed process left."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import StorageFailed

log = logging.getLogger(__name__)

UPLOAD_PREFIX = ".ollama-backend-upload-"
PRIVATE = 0o600
"""The mode of every file in the folder: its owner can read and write it, nobody else."""

_FOR_OTHERS = 0o077
_WRITABLE_FOR_OTHERS = 0o022
_NAMES = re.compile(
    r"(backend\.db|queue\.db|ollama\.log|\.?(providers|settings|models|updates)\.json)([-.].*)?"
    rf"|{re.escape(UPLOAD_PREFIX)}.*"
)
_UNFINISHED = re.compile(r"\.((?:providers|settings|models|updates)\.json)\.[a-z0-9_]{8}")  # of JsonFile
_LOCK_LIMIT = 2.0  # seconds
_DAY = 86_400.0  # seconds


def prepare(folder: Path) -> None:
    """Make *folder* and close it and its files to other users; to be called before anything in it is opened.

    A folder that is shared with others (it has another owner, is like `/tmp`, or holds folders that others
    can use) stays as it is: then only this program's own files are closed. Links are not followed.

    :raises StorageFailed: when the folder cannot be used
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if os.name != "nt":  # Windows has no modes: a folder in the user's profile is the user's alone
            _close_to_others(folder, entries)
        _remove_unfinished(folder, entries)
    except OSError as exc:
        raise _unusable(folder, exc) from exc


def make_private(path: Path) -> None:
    """Make the empty file *path* for its owner only, if there is none.

    What SQLite creates beside a database gets the mode of the database.

    :raises StorageFailed: when the file cannot be made
    """
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE)
    except FileExistsError:
        return
    except OSError as exc:
        raise _unusable(path, exc) from exc
    os.close(handle)


def warn_if_open(path: Path) -> None:
    """Log a warning when other users can read *path*, a file with secrets."""
    if os.name != "nt" and path.exists() and path.stat().st_mode & _FOR_OTHERS:
        log.warning("Other users of this machine may read the keys in %s: chmod 600 '%s'", path, path)


def _unusable(path: Path, exc: OSError) -> StorageFailed:
    reason = (exc.strerror or type(exc).__name__).lower()
    return StorageFailed(
        f"The data folder cannot be used: {path}: {reason}.",
        hint="Check the folder's owner, permissions and free space, or set another one: BACKEND_DATA_DIR",
    )


def _close_to_others(folder: Path, entries: list[os.DirEntry[str]]) -> None:
    shared = _is_shared(folder, entries)
    closed: list[str] = []
    open_still: list[str] = []
    for path in _to_close(folder, entries, shared=shared):
        if stat.S_ISLNK(path.lstat().st_mode) or not path.lstat().st_mode & _FOR_OTHERS:
            continue
        (closed if _close(path) else open_still).append(path.name)
    if closed:
        log.warning(
            "Other users could read the data folder %s; closed to them: %s", folder, ", ".join(closed)
        )
    if open_still:
        log.warning("The modes in the data folder %s cannot be set: %s", folder, ", ".join(open_still))
    if shared:
        log.warning(
            "The data folder %s is shared with others, so it stays open to them; only our files in "
            "it are private. Give it a folder of its own: BACKEND_DATA_DIR",
            folder,
        )


def _to_close(folder: Path, entries: list[os.DirEntry[str]], *, shared: bool) -> Iterator[Path]:
    if not shared:
        yield folder.resolve()  # first: then nobody can open a file meanwhile
    for entry in entries:
        with suppress(FileNotFoundError):  # another process has removed it
            if entry.is_file(follow_symlinks=False) and (not shared or _NAMES.fullmatch(entry.name)):
                yield Path(entry.path)


def _is_shared(folder: Path, entries: list[os.DirEntry[str]]) -> bool:
    """Tell whether others may rely on the mode of *folder*.

    :raises StorageFailed: when another user has put a file there under one of this program's names
    """
    found = folder.stat()
    if not found.st_mode & _FOR_OTHERS:
        return False
    if found.st_mode & _WRITABLE_FOR_OTHERS:
        _check_owners(folder, entries, {os.geteuid(), found.st_uid, 0})
    return (
        found.st_uid != os.geteuid()
        or bool(found.st_mode & stat.S_ISVTX)
        or folder.resolve() == Path.home()
        or any(_is_open_folder(entry) for entry in entries)
    )


def _check_owners(folder: Path, entries: list[os.DirEntry[str]], owners: set[int]) -> None:
    for entry in entries:
        if _NAMES.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_uid not in owners:
            raise StorageFailed(
                f"{entry.name} in the data folder {folder} belongs to another user.",
                hint="Set a folder that only you can write to: BACKEND_DATA_DIR",
            )


def _is_open_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and bool(
        entry.stat(follow_symlinks=False).st_mode & _FOR_OTHERS
    )


def _close(path: Path) -> bool:
    """Take the rights of group and others from *path*; return whether that worked."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchmod(handle, stat.S_IMODE(os.fstat(handle).st_mode) & 0o700)
            return not os.fstat(handle).st_mode & _FOR_OTHERS  # some file systems ignore modes
        finally:
            os.close(handle)
    except OSError:
        return False


def _remove_unfinished(folder: Path, entries: list[os.DirEntry[str]]) -> None:
    """Remove what killed processes left; of a running process the lock is held, or the file is new."""
    removed = []
    for entry in entries:
        path, unfinished = Path(entry.path), _UNFINISHED.fullmatch(entry.name)
        with suppress(FileNotFoundError, Timeout):
            if unfinished:
                with FileLock(folder / f"{unfinished[1]}.lock", timeout=_LOCK_LIMIT, mode=PRIVATE):
                    path.unlink()
                removed.append(entry.name)
            elif entry.name.startswith(UPLOAD_PREFIX) and time.time() - path.lstat().st_mtime > _DAY:
                path.unlink()
                removed.append(entry.name)
    if removed:
        log.warning("Removed what a killed process left in the data folder: %s", ", ".join(removed))

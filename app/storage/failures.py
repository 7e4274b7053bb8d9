"""Turn the exceptions of SQLAlchemy and of the databases' drivers into :class:`~app.errors.StorageFailed`."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import StorageFailed

log = logging.getLogger(__name__)

_SOON, _LATER = 5, 60  # seconds until another try: for what passes, and for what a person must mend
_ROOM = 1 << 20  # bytes; a disk with less free space counts as full


class _Failure(NamedTuple):
    sentence: str
    hint: str
    retry_after: int | None


_FAILURES = {
    "locked": _Failure(
        "Another request or program keeps the database locked.",
        "Try again. If it stays so, look for a program that has the database open, such as a backup.",
        _SOON,
    ),
    "busy": _Failure(
        "The database has no free connection.",
        "Try again. If it stays so, allow the database more connections, or lower BACKEND_THREADS.",
        _SOON,
    ),
    "gone": _Failure(
        "The database does not answer.",
        "Check that its server runs, and the address, user and password in BACKEND_DATABASE_URL.",
        _SOON,
    ),
    "full": _Failure(
        "The disk of the database is full.",
        "Free some space there, or move the data folder with BACKEND_DATA_DIR.",
        None,
    ),
    "damaged": _Failure(
        "The database is damaged, or its file was replaced.",
        "Stop the backend, then restore backend.db from a backup, or save what can be read: "
        "see docs/deployment.md.",
        _LATER,
    ),
    "newer": _Failure(
        "The database was made by a newer release of this program.",
        "Install that release, or restore a backup of the database from before the update.",
        _LATER,
    ),
    "address": _Failure(
        "BACKEND_DATABASE_URL is no address of a PostgreSQL or SQLite database.",
        "Such as postgresql://user:password@localhost:5432/backend; without it, backend.db is used.",
        _LATER,
    ),
    "driver": _Failure(
        "The package for PostgreSQL is not installed.",
        f"{sys.executable} -m pip install 'psycopg[binary]'",
        _LATER,
    ),
    "redis_driver": _Failure(
        "The package for Redis is not installed.", f"{sys.executable} -m pip install redis", _LATER
    ),
    "redis_address": _Failure(
        "BACKEND_REDIS_URL is no address of a Redis server.", "Such as redis://localhost:6379/0", _LATER
    ),
    "redis": _Failure(
        "Redis does not answer, or refuses the request.",
        "Check that Redis runs, and the address and the password in BACKEND_REDIS_URL.",
        _SOON,
    ),
    "read_only": _Failure(
        "The database can be read, but not written.",
        "Check the owner and the permissions of backend.db and the data folder; a PostgreSQL server must not "
        "be a read-only replica.",
        _LATER,
    ),
    "denied": _Failure(
        "The database cannot be opened.",
        "Check the owner and the permissions of backend.db and the data folder, the rights of the user in "
        "BACKEND_DATABASE_URL, and the limit of open files.",
        _LATER,
    ),
    "failed": _Failure(
        "The database failed.",
        "Check the disk of the database, and the log of its server.",
        _LATER,
    ),
}

# Parts of SQLite's messages, which are constants of its source. Its error codes need Python 3.11.
_SQLITE = (
    ("is locked", "locked"),
    ("disk is full", "full"),
    ("malformed", "damaged"),
    ("not a database", "damaged"),
    ("unsupported file format", "damaged"),
    ("no such table", "damaged"),
    ("readonly database", "read_only"),
    ("unable to open", "denied"),
)

# The beginnings of PostgreSQL's error codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = (
    ("53100", "full"),
    ("53", "busy"),  # insufficient resources
    ("40", "locked"),  # a deadlock, or two transactions that cannot be put in order
    ("55P03", "locked"),
    ("57014", "locked"),  # the time for a statement is over
    ("57", "gone"),  # shut down
    ("08", "gone"),  # connection exceptions
    ("25006", "read_only"),
    ("28", "denied"),
    ("3D", "denied"),  # no such database
    ("42501", "denied"),
    ("42P01", "damaged"),  # no such table
    ("XX001", "damaged"),
    ("XX002", "damaged"),
)


def storage_failed(exc: SQLAlchemyError, folder: Path) -> StorageFailed | None:
    """Return the error for *exc*; None if *exc* is a fault of this program, or is a violated constraint.

    :param folder: the data folder
    """
    reason = _reason(exc, folder)
    if reason == "failed":
        orig = getattr(exc, "orig", None)
        code = getattr(orig, "sqlstate", None) or getattr(orig, "sqlite_errorname", "")
        log.warning("the database failed: %s %s", type(orig).__name__, code)
    return storage_error(reason) if reason else None


def storage_error(reason: str) -> StorageFailed:
    """Return the error for a failure of the database of one kind, such as `locked`."""
    failure = _FAILURES[reason]
    return StorageFailed(
        failure.sentence, hint=failure.hint, details={"reason": reason}, retry_after=failure.retry_after
    )


def _reason(exc: SQLAlchemyError, folder: Path) -> str | None:
    if isinstance(exc, PoolTimeout):
        return "busy"
    if not isinstance(exc, DBAPIError) or isinstance(exc, IntegrityError | DataError):
        return None
    state = getattr(exc.orig, "sqlstate", "")  # of psycopg only; None when it comes without a code
    found = _of_sqlite(str(exc.orig), folder) if state == "" else _of_postgresql(state or "")
    is_fault_of_ours = found in {"failed", "gone"} and isinstance(exc, ProgrammingError)
    return None if is_fault_of_ours else found


def _of_postgresql(state: str) -> str:
    known = (reason for start, reason in _POSTGRESQL if state.startswith(start))
    return next(known, "failed" if state else "gone")  # a connection that breaks has no code


def _of_sqlite(message: str, folder: Path) -> str:
    reason = next((reason for part, reason in _SQLITE if part in message), "failed")
    return "full" if reason in {"failed", "denied"} and _is_full(folder) else reason


def _is_full(folder: Path) -> bool:
    """Tell whether the disk is full; SQLite does not always say so."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False

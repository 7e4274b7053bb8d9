"""PostgreSQL for tests: ``TEST_DATABASE=postgresql`` gives each data folder a database of its own.

The tests start the installed PostgreSQL in a temporary folder.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import psycopg

from tests.free_port import free_port

WANTED = os.environ.get("TEST_DATABASE") == "postgresql"


def database_url(data_dir: Path) -> str:
    """Return the URL of the database for *data_dir*; empty for SQLite in that folder."""
    if not WANTED:
        return ""
    server = _server()
    name = "t" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:20]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
            connection.execute(f'create database "{name}"')
    return f"{server}/{name}"


@cache
def _server() -> str:
    """Start a server that stops when the tests end; return its URL."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
    port = free_port()
    data = folder / "data"
    quick = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=300"
    initdb = [_program("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
    control = [_program("pg_ctl"), "-D", str(data), "-w"]
    log = str(folder / "log")
    _run(initdb, folder)
    _run([*control, "-l", log, "-o", quick, "start"], folder)
    atexit.register(_stop, control, folder)
    return f"postgresql://postgres@127.0.0.1:{port}"


def _run(command: list[str], folder: Path) -> None:
    user = "postgres" if os.getuid() == 0 else None
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, user=user)


def _stop(control: list[str], folder: Path) -> None:
    _run([*control, "-m", "immediate", "stop"], folder)
    shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    """Return the path of PostgreSQL's program *name*; on Debian it is not in PATH."""
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), shutil.which(name)]
    assert found[-1] or found[0], f"{name} is not installed"
    return str(found[0] or found[-1])

"""Starts that fail: a sentence and an exit code, without a traceback, however the program is started."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.process import ROOT

SERVER = (sys.executable, "backend_server.py", "--port", "0")
COMMAND = (sys.executable, "-m", "flask", "--app", "app", "models", "list")
GUNICORN = (sys.executable, "-m", "gunicorn", "-k", "gthread", "-b", "127.0.0.1:0", "app.wsgi:app")
STARTS = pytest.mark.parametrize("start", [SERVER, COMMAND, GUNICORN], ids=["server", "command", "gunicorn"])


def _start(data_dir: Path, *command: str, **env: str) -> tuple[int, str]:
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "BACKEND_DATA_DIR": str(data_dir), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said
    assert "sqlalchemy" not in said.lower()
    return ended.returncode, said


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


@STARTS
def test_damaged_database_is_named_and_left_as_it_is(data_dir: Path, start: tuple[str, ...]) -> None:
    damaged = b"this is no database " * 1000
    (data_dir / "backend.db").write_bytes(damaged)

    code, said = _start(data_dir, *start)

    assert code == (4 if start is GUNICORN else 1)
    assert "The database is damaged" in said
    assert "restore backend.db from a backup" in said
    assert str(data_dir) in said
    assert (data_dir / "backend.db").read_bytes() == damaged


@STARTS
def test_database_of_a_newer_release_is_refused(data_dir: Path, start: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(data_dir / "backend.db")) as newer:
        newer.execute("create table alembic_version (version_num varchar(32) not null)")
        newer.execute("insert into alembic_version values ('9999')")
        newer.commit()

    code, said = _start(data_dir, *start)

    assert code == (4 if start is GUNICORN else 1)
    assert "The database was made by a newer release of this program. Install that release" in " ".join(
        said.split()
    )


@STARTS
def test_invalid_setting_is_named(data_dir: Path, start: tuple[str, ...]) -> None:
    code, said = _start(data_dir, *start, BACKEND_MAX_PULLS="many")

    assert code == (4 if start is GUNICORN else 1)
    assert "BACKEND_MAX_PULLS" in said


AS_ANOTHER_USER = """
import os, sys, click
from pathlib import Path
from app import create_app
create_app().extensions["services"].close()  # root makes the files
Path(sys.argv[1]).chmod(0o600)
os.seteuid(65534)
try:
    click.command(create_app)([])
finally:
    os.seteuid(0)  # the coverage of this process is written at its end
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", [".", "backend.db"])
def test_files_of_another_user_are_a_sentence(tmp_path: Path, data_dir: Path, name: str) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)

    code, said = _start(data_dir, sys.executable, "-c", AS_ANOTHER_USER, str(data_dir / name))

    assert code == 1
    assert "Error: " in said
    assert "permissions" in said or "Permission denied" in said


@pytest.mark.parametrize(
    ("package", "setting", "hint"),
    [
        ("psycopg", {"BACKEND_DATABASE_URL": "postgresql://localhost/x"}, "pip install 'psycopg[binary]'"),
        ("redis", {"BACKEND_REDIS_URL": "redis://localhost"}, "pip install redis"),
    ],
)
def test_missing_package_is_named(data_dir: Path, package: str, setting: dict[str, str], hint: str) -> None:
    without = f"import sys; sys.modules['{package}'] = None; import backend_server; backend_server.main()"

    code, said = _start(data_dir, sys.executable, "-c", without, "--port", "0", **setting)

    assert code == 1
    assert hint in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKEND_DATABASE_URL", "mysql://someone:a-secret@localhost/x"),
        ("BACKEND_DATABASE_URL", "no address with a-secret"),
        ("BACKEND_DATABASE_URL", "postgresql://someone:a-secret@127.0.0.1:1/x"),
        ("BACKEND_DATABASE_URL", "postgresql://someone:a-secret@127.0.0.1:port/x"),
        ("BACKEND_REDIS_URL", "http://:a-secret@localhost"),
    ],
)
def test_address_that_cannot_be_used_is_a_sentence_without_its_password(
    data_dir: Path, name: str, value: str
) -> None:
    code, said = _start(data_dir, *SERVER, **{name: value})

    assert code == 1
    assert name in said
    assert "a-secret" not in said

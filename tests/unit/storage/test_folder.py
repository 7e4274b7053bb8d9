"""The data folder: closed to other users, whatever the umask is and whatever was there before."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from app.errors import StorageFailed
from app.storage import folder as data_folder
from app.storage.database import Database
from app.storage.folder import UPLOAD_PREFIX, make_private, prepare, warn_if_open
from app.storage.json_file import JsonFile

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder of a former release: open to everybody."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def put(path: Path, mode: int = 0o644) -> Path:
    path.write_text("secret")
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_files(folder: Path) -> list[str]:
    return [path.name for path in (folder, *folder.iterdir()) if mode_of(path) & 0o077]


def test_what_the_program_makes_is_private_under_every_umask(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "new" / "data"

    prepare(folder)
    database = Database("", folder)
    database.migrate()
    JsonFile(folder / "settings.json", lambda data: None).update(lambda data: data.update(a=1))
    make_private(folder / "ollama.log")
    with (folder / "ollama.log").open("ab") as log:
        log.write(b"x")

    assert open_files(folder) == []
    assert {"backend.db", "backend.db-wal", "backend.db-shm", "backend.db.lock", "settings.json.lock"} <= {
        path.name for path in folder.iterdir()
    }
    database.close()


def test_a_folder_of_a_former_release_is_closed_with_one_line_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "backend.db",
        "backend.db-wal",
        "providers.json",
        "settings.json.damaged-20260101T0",
        "a.bak",
    ):
        put(folder / name, 0o666)

    prepare(folder)
    prepare(folder)

    assert mode_of(folder) == 0o700
    assert {mode_of(path) for path in folder.iterdir()} == {0o600}
    (line,) = caplog.messages
    assert line.startswith(f"Other users could read the data folder {folder}; closed to them: data, a.bak, ")


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    other = put(tmp_path / "other")
    (folder / "backend.db").symlink_to(other)

    prepare(folder)

    assert mode_of(other) == 0o644


@pytest.mark.parametrize("kind", ["sticky", "home", "holds-folders"])
def test_a_shared_folder_stays_as_it_is_but_for_our_files(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = [put(folder / name) for name in ("backend.db", "queue.db-wal", "updates.json", "models.json.lock")]
    theirs = put(folder / "notes.txt")
    if kind == "sticky":
        folder.chmod(0o1777)
    elif kind == "home":
        monkeypatch.setenv("HOME", str(folder))
    else:
        (folder / "public").mkdir(mode=0o755)
    before = mode_of(folder)

    prepare(folder)

    assert mode_of(folder) == before
    assert {mode_of(path) for path in ours} == {0o600}
    assert mode_of(theirs) == 0o644
    assert "is shared with others" in caplog.messages[-1]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_stays_as_it_is(folder: Path) -> None:
    os.chown(folder, 12345, -1)
    put(folder / "backend.db")

    prepare(folder)

    assert mode_of(folder) == 0o755
    assert mode_of(folder / "backend.db") == 0o600


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["backend.db", "providers.json", "queue.db-wal"])
def test_a_file_that_another_user_put_into_a_writable_folder_is_refused(folder: Path, name: str) -> None:
    folder.chmod(0o1777)
    os.chown(put(folder / name), 12345, -1)

    with pytest.raises(StorageFailed, match=f"{name} in the data folder .* belongs to another user"):
        prepare(folder)


@pytest.mark.parametrize(
    ("name", "reason"), [("file", "file exists"), ("file/below", "not a directory")], ids=["file", "below"]
)
def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, name: str, reason: str) -> None:
    put(tmp_path / "file")

    with pytest.raises(StorageFailed, match=f"The data folder cannot be used: .*: {reason}\\.") as caught:
        prepare(tmp_path / name)

    assert "BACKEND_DATA_DIR" in str(caught.value.hint)


def test_temporary_files_of_killed_processes_are_removed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = [put(folder / name, 0o600) for name in (".providers.json.ab12_cd9", ".settings.json.zzzzzzzz")]
    old, new = put(folder / f"{UPLOAD_PREFIX}old"), put(folder / f"{UPLOAD_PREFIX}new")
    os.utime(old, (time.time() - 90_000,) * 2)
    kept = [
        put(folder / name) for name in ("providers.json", ".notes.json.ab12_cd9", "upload-20260101", ".x")
    ]

    prepare(folder)

    assert not any(path.exists() for path in (*left, old))
    assert all(path.exists() for path in (*kept, new))
    assert "Removed what a killed process left in the data folder: " in caplog.text
    assert "secret" not in caplog.text


def test_temporary_files_of_a_running_process_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_folder, "_LOCK_LIMIT", 0.05)
    path = put(folder / ".providers.json.ab12_cd9")

    with FileLock(folder / "providers.json.lock"):
        prepare(folder)

    assert path.exists()


@pytest.mark.parametrize(("mode", "lines"), [(0o644, 1), (0o640, 1), (0o600, 0)])
def test_open_file_with_keys_gets_a_warning(
    tmp_path: Path, mode: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(tmp_path / ".env", mode)

    with caplog.at_level(logging.WARNING):
        warn_if_open(path)

    assert len(caplog.messages) == lines
    assert "secret" not in caplog.text

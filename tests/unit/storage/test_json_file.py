"""The file that several processes change."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path

import pytest

from app.storage.json_file import Json, JsonFile


def _any_object(data: Json) -> None:
    if type(data) is not dict:
        raise ValueError("not an object")


def _count_up(path: Path, times: int) -> None:
    file = JsonFile(path, _any_object)
    for _ in range(times):
        file.update(lambda data: data.update(count=data.get("count", 0) + 1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "some.json"


def test_read_of_a_missing_file_is_empty(path: Path) -> None:
    file = JsonFile(path, _any_object)

    assert file.read() == {}
    assert file.damage == ""


def test_update_keeps_the_object_for_its_owner_only(path: Path) -> None:
    JsonFile(path, _any_object).update(lambda data: data.update(text="ü"))

    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "ü"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == ["some.json", "some.json.lock"]


def test_update_that_raises_leaves_the_file_as_it_was(path: Path) -> None:
    file = JsonFile(path, _any_object)
    file.update(lambda data: data.update(a=1))

    def fail(data: Json) -> None:
        data["a"] = 2
        raise LookupError

    with pytest.raises(LookupError):
        file.update(fail)

    assert file.read() == {"a": 1}


def test_update_that_cannot_be_written_leaves_the_file_as_it_was(path: Path) -> None:
    file = JsonFile(path, _any_object)
    file.update(lambda data: data.update(a=1))

    with pytest.raises(TypeError):
        file.update(lambda data: data.update(a=object()))

    assert file.read() == {"a": 1}
    assert sorted(p.name for p in path.parent.iterdir()) == ["some.json", "some.json.lock"]


def test_read_sees_what_another_process_wrote(path: Path) -> None:
    one, other = JsonFile(path, _any_object), JsonFile(path, _any_object)
    one.update(lambda data: data.update(a=1))
    assert other.read() == {"a": 1}

    one.update(lambda data: data.update(a=2))

    assert other.read() == {"a": 2}


def test_updates_of_several_processes_are_all_kept(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_up, args=(path, 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert JsonFile(path, _any_object).read() == {"count": 100}


@pytest.mark.parametrize("damaged", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a": 1} x'])
def test_damaged_file_is_ignored_reported_and_kept(path: Path, damaged: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damaged)
    file = JsonFile(path, _any_object)

    assert file.read() == {}

    assert str(path) in file.damage
    assert path.read_bytes() == damaged


def test_update_of_a_damaged_file_sets_it_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"{damaged")
    file = JsonFile(path, _any_object)

    file.update(lambda data: data.update(a=1))

    kept = [p for p in path.parent.iterdir() if ".damaged-" in p.name]
    assert [p.read_bytes() for p in kept] == [b"{damaged"]
    assert file.read() == {"a": 1}
    assert file.damage == ""


def test_folder_in_place_of_the_file_counts_as_damage(path: Path) -> None:
    path.mkdir(parents=True)
    file = JsonFile(path, _any_object)

    before = file.read()
    damage = file.damage
    file.update(lambda data: data.update(a=1))

    assert (before, file.read()) == ({}, {"a": 1})
    assert "is damaged" in damage
    assert len([*path.parent.glob(f"{path.name}.damaged-*")]) == 1

"""Damaged files that are set aside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.services.jobs.queue import Jobs
from app.storage.damaged import set_aside_damaged_database


def _queue(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table task (id integer primary key, data blob)")
        connection.executemany("insert into task (data) values (?)", [(b"x" * 500,)] * 200)
        connection.commit()


@pytest.mark.parametrize("where", [0, 30, 4096, 20_000])
def test_damaged_queue_of_an_older_version_is_set_aside(tmp_path: Path, where: int) -> None:
    path = tmp_path / "queue.db"
    _queue(path)
    damaged = bytearray(path.read_bytes())
    damaged[where : where + 2000] = b"\xaa" * 2000
    path.write_bytes(damaged)

    Jobs("", tmp_path, 1).stop()

    kept = [found for found in tmp_path.iterdir() if ".damaged-" in found.name]
    assert [found.read_bytes() for found in kept] == [bytes(damaged)]


def test_good_queue_stays(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    _queue(path)

    set_aside_damaged_database(path)

    assert [found.name for found in tmp_path.iterdir()] == ["queue.db"]

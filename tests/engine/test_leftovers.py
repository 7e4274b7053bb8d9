"""What failed pulls and uploads leave in the models folder is removed after a day."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from app.engine.models.store import ModelStore
from app.engine.pulls.leftovers import remove_leftovers
from tests.engine.process import EngineProcess, wait_until
from tests.engine.test_pulls import NAME, WEIGHTS
from tests.registry import Registry, digest_of

OLD, YOUNG = 90_000, 80_000  # seconds: more than a day, and less
DIGEST = "sha256:" + "a" * 64


def put(path: Path, age: float = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_old_unfinished_files_are_removed_and_young_ones_stay(store: ModelStore) -> None:
    blobs, partial = store.root / "blobs", store.partial_path(DIGEST)
    old = [
        put(partial),
        put(Path(f"{partial}.lock")),
        put(Path(f"{partial}-0")),  # Ollama's note about a part
        put(blobs / f"sha256-{'b' * 64}-partial.lock"),  # a lock without its file
        put(blobs / "upload-x1"),
        put(blobs / ".new-x1"),
        put(store.root / "manifests/registry.ollama.ai/library/m/.new-x1"),
    ]
    kept = [
        put(store.partial_path("sha256:" + "c" * 64), YOUNG),
        put(store.partial_path("sha256:" + "d" * 64)),
        put(Path(f"{store.partial_path('sha256:' + 'd' * 64)}-3"), YOUNG),  # Ollama writes another part now
        put(store.blob_path("sha256:" + "e" * 64)),
        put(blobs / "notes-partial"),
        put(blobs / "upload-x2", YOUNG),
    ]

    remove_leftovers(store)

    assert [path.name for path in old if path.exists()] == []
    assert [path.name for path in kept if not path.exists()] == []


def test_file_that_another_engine_has_locked_stays(store: ModelStore) -> None:
    partial = put(store.partial_path(DIGEST))

    with FileLock(f"{partial}.lock"):
        put(Path(f"{partial}.lock"))
        remove_leftovers(store)

    assert partial.exists()


def test_files_of_running_pulls_stay_young(store: ModelStore) -> None:
    partial = put(store.partial_path(DIGEST))

    remove_leftovers(store, kept=[partial])

    assert time.time() - partial.stat().st_mtime < YOUNG


@pytest.mark.live
def test_start_of_an_engine_removes_them_but_not_those_of_another_engine(
    tmp_path: Path, registry: Registry
) -> None:
    store = ModelStore(tmp_path / "models")
    left = put(store.partial_path(DIGEST))
    registry.add_model(NAME, {"model": WEIGHTS})
    registry.faults.bytes_per_second = 1  # after the first 16 kB nothing comes for hours
    partial = store.partial_path(digest_of(WEIGHTS))

    with EngineProcess(store.root) as running:
        wait_until(lambda: not left.exists())
        body = {"model": registry.name(NAME), "insecure": True}
        with running.post("/api/pull", body, stream=True):
            wait_until(lambda: partial.exists() and partial.stat().st_size)
            os.utime(partial, (time.time() - OLD,) * 2)
            again = put(store.partial_path("sha256:" + "b" * 64))
            with EngineProcess(store.root):
                wait_until(lambda: not again.exists())

            assert partial.exists()

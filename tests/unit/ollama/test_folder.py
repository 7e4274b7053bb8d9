"""Ollama's models folder, read where it is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.services.ollama.folder import LocalStore
from app.services.providers.store import Provider
from tests.models_folder import Folder
from tests.registry import digest_of

OLLAMA = Provider("ollama", kind="ollama", base_url="http://localhost:11434/v1")
WEIGHTS, CONFIG = b"weights" * 1000, b"{}"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "models")


def _find(folder: Folder, **more: Any) -> LocalStore | None:
    return LocalStore.find(OLLAMA, {"OLLAMA_MODELS": str(folder.path)}, **more)


def test_local_store_lists_models_by_the_name_that_ollama_shows(folder: Folder) -> None:
    listed = folder.add("base:latest", CONFIG, WEIGHTS)

    store = _find(folder)

    assert store is not None
    assert store.path == folder.path
    manifest = store.models()["base:latest"]
    assert manifest.digest == f"sha256:{listed['digest']}"
    assert [(layer.digest, layer.size) for layer in manifest.layers] == [
        (digest_of(CONFIG), len(CONFIG)),
        (digest_of(WEIGHTS), len(WEIGHTS)),
    ]
    assert store.has_blob(digest_of(WEIGHTS))
    assert not store.has_blob(digest_of(b"other"))
    assert not store.has_blob("sha256:../../etc/passwd")
    assert store.free_bytes() > 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"config":{}}', b"\xff", b"[" * 100_000, b'{"config":1,"layers":2}']
)
def test_local_store_leaves_a_corrupt_manifest_out(folder: Folder, content: bytes) -> None:
    folder.add("base:latest", CONFIG, WEIGHTS)
    folder.add("bad:latest", CONFIG)
    folder.manifest("bad:latest").write_bytes(content)
    folder.manifest("base:latest").with_name(".hidden").write_bytes(b"{}")
    folder.manifest("dir:latest").mkdir(parents=True)

    store = _find(folder)

    assert store is not None
    assert list(store.models()) == ["base:latest"]


def test_local_store_of_another_ollama_is_not_taken(folder: Folder) -> None:
    listed = folder.add("base:latest", CONFIG)

    own = _find(folder, listed={f"sha256:{listed['digest']}"})
    others = _find(folder, listed={digest_of(b"another")})

    assert own is not None
    assert others is None


@pytest.mark.parametrize("url", ["http://192.168.1.5:11434/v1", "http://ollama.example/v1"])
def test_local_store_of_another_machine_is_not_here(folder: Folder, url: str) -> None:
    folder.add("base:latest", CONFIG)
    provider = replace(OLLAMA, base_url=url)

    assert LocalStore.find(provider, {"OLLAMA_MODELS": str(folder.path)}) is None


@pytest.mark.parametrize(
    "environ",
    [
        lambda home: {"HOME": str(home)},
        lambda home: {"USERPROFILE": str(home)},
        lambda home: {"HOME": str(home), "OLLAMA_MODELS": str(home / "nothing")},
    ],
)
def test_local_store_is_below_the_home_folder_by_default(
    tmp_path: Path, environ: Callable[[Path], dict[str, str]]
) -> None:
    Folder(tmp_path / ".ollama" / "models").add("base:latest", CONFIG)

    store = LocalStore.find(OLLAMA, environ(tmp_path))

    assert store is not None
    assert list(store.models()) == ["base:latest"]

"""What a model takes: memory, disk, a newer Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import gguf
from app.manifest import Layer
from app.services.models.disk import duplicates, parts_of, sizes_of, usage
from app.services.ollama.folder import LocalStore, partial_bytes
from app.services.ollama.registry import ManifestSummary
from app.services.pulls.memory_need import available_bytes, kv_cache_bytes, needed_bytes
from app.services.pulls.plan import is_new_enough
from tests.registry import smollm2_file

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 32,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "llama.embedding_length": 4096,
    "tokenizer.ggml.model": "gpt2",
}


def header(**changed: Any) -> gguf.Header:
    metadata = {**LLAMA, **{f"llama.{key.replace('__', '.')}": value for key, value in changed.items()}}
    return gguf.Header({key: value for key, value in metadata.items() if value is not None}, (), 0)


@pytest.mark.parametrize(
    ("changed", "size"),
    [
        ({}, 2 * 32 * 4096 * 8 * 128 * 2),  # 512 MiB, as llama.cpp says of Llama 3 8B
        ({"attention__head_count_kv": None}, 2 * 32 * 4096 * 32 * 128 * 2),
        ({"attention__key_length": 64}, 2 * 32 * 4096 * 8 * 64 * 2),
        ({"attention__head_count_kv": [8] * 16 + [0] * 16}, 2 * 16 * 4096 * 8 * 128 * 2),
        ({"block_count": None}, None),
        ({"embedding_length": None}, None),
        ({"attention__head_count": None, "attention__head_count_kv": None}, None),
        ({"block_count": -3}, None),
        ({"attention__head_count_kv": ["x", None]}, None),
    ],
)
def test_cache_of_a_context_follows_from_the_header(changed: dict[str, Any], size: int | None) -> None:
    assert kv_cache_bytes(header(**changed), 4096) == size


def test_memory_without_a_header_is_guessed_from_the_weights() -> None:
    assert needed_bytes(1000, None, 4096) == (1200, True)
    assert needed_bytes(1000, header(), 1) == (1000 + 2 * 32 * 8 * 128 * 2, False)


@given(st.integers(0, 300_000))
def test_beginning_of_a_model_tells_what_it_can(size: int) -> None:
    with smollm2_file().open("rb") as file:
        start = file.read(size)

    try:
        found = gguf.parse_start(start)
    except ValueError:
        assert size < 24
        return

    assert kv_cache_bytes(found, 8192) in {None, 2 * 30 * 8192 * 3 * 64 * 2}
    if size > 4096:
        assert found.integer("block_count") == 30


@pytest.mark.parametrize(
    ("version", "wanted", "enough"),
    [
        ("0.33.0-rc2", "0.33.0", True),
        ("0.33.0", "0.34", False),
        ("v1.0", "0.99.99", True),
        ("0.9.0", "0.10.0", False),
        ("unknown", "0.1.0", None),
        ("0.1.0", "", None),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, wanted: str, enough: bool | None) -> None:
    assert is_new_enough(version, wanted) is enough


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ("MemTotal: 1 kB\nMemAvailable:   2000 kB\n", 2_048_000),
        ("MemTotal: 1 kB\n", None),
        ("MemAvailable:", None),
    ],
)
def test_available_memory_is_what_the_system_says(tmp_path: Path, content: str, size: int | None) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(content)

    assert available_bytes(meminfo) == size
    assert available_bytes(tmp_path / "absent") is None


def model(mark: str, *layers: tuple[str, int]) -> ManifestSummary:
    return ManifestSummary(mark, tuple(Layer(digest, size, "") for digest, size in layers))


def test_disk_counts_shared_layers_once() -> None:
    weights = ("w", 100)
    models = {
        "a:1": model("1", weights, ("t", 5)),
        "b:1": model("2", weights, ("u", 7)),
        "c:1": model("3", ("x", 9)),
    }

    found = {each["model"]: each for each in sizes_of(parts_of([], models))}

    assert found["a:1"] == {"model": "a:1", "size": 105, "shared_bytes": 100, "reclaimable_bytes": 5}
    assert found["c:1"] == {"model": "c:1", "size": 9, "shared_bytes": 0, "reclaimable_bytes": 9}


manifests = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.builds(
        lambda digests: model("x", *((digest, ord(digest)) for digest in digests)),
        st.lists(st.sampled_from("ABCDEF")),
    ),
)


@given(manifests)
def test_disk_of_a_model_is_what_it_shares_and_what_it_alone_has(models: dict[str, ManifestSummary]) -> None:
    found = sizes_of(parts_of([], models))

    total = sum({layer.digest: layer.size for each in models.values() for layer in each.layers}.values())
    assert all(each["shared_bytes"] + each["reclaimable_bytes"] == each["size"] for each in found)
    assert sum(each["reclaimable_bytes"] for each in found) <= total


def test_disk_counts_a_model_that_the_folder_does_not_show_as_it_is_listed() -> None:
    listed = [{"name": name, "size": size, "digest": name} for name, size in [("A:1", 1), ("odd name", 7)]]

    parts = parts_of(listed, {"a:1": model("1", ("w", 100))})

    assert parts == {"a:1": {"w": 100}, "odd name": {"odd name": 7}}
    assert usage(listed, None, parts, {})["total_bytes"] == 107


def test_disk_without_the_folder_is_estimated_from_the_list() -> None:
    listed = [
        {"name": name, "size": size, "digest": digest}
        for name, size, digest in [("a:1", 5, "x"), ("b:1", 5, "x"), ("c:1", 7, "y")]
    ]

    found = usage(listed, None, parts_of(listed, {}), {})

    assert (found["total_bytes"], found["estimated"], found["path"]) == (12, True, None)
    assert [(each["model"], each["reclaimable_bytes"]) for each in found["models"]] == [
        ("c:1", 7), ("a:1", 0), ("b:1", 0),
    ]  # fmt: skip
    assert found["duplicates"] == [["a:1", "b:1"]]


def test_duplicates_are_names_with_the_same_digest() -> None:
    assert duplicates({"b": "1", "a": "1", "c": "2"}) == [["a", "b"]]
    assert sizes_of(parts_of([], {})) == []


def test_unfinished_downloads_are_counted_as_they_lie_on_the_disk(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / "sha256-aa-partial").write_bytes(b"x" * 9000)
    (blobs / "sha256-ab").write_bytes(b"x" * 500)
    with (blobs / "sha256-bb-partial").open("wb") as file:  # full of holes, as Ollama makes them
        file.truncate(10_000_000)

    assert partial_bytes(blobs, "sha256:aa") == 9000
    assert 9000 <= partial_bytes(blobs) < 1_000_000
    assert partial_bytes(tmp_path / "absent") == 0
    assert LocalStore(tmp_path).free_bytes() > 0

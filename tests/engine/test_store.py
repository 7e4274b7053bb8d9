from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from app.engine.models import seed as seeding
from app.engine.models.store import Model, ModelStore
from app.engine.runners.launch import plan
from app.manifest import CONFIG_TYPE, CorruptManifestError, Layer, Manifest
from app.model_name import ModelName


def name(text: str) -> ModelName:
    return ModelName.parse(text)


def install(store: ModelStore, text: str, *contents: str) -> Model:
    """Install a model with a system layer of each of *contents*."""
    layers = [store.add_text("system", content) for content in contents]
    config = store.add_bytes(CONFIG_TYPE, json.dumps({"of": contents}).encode())
    store.write(name(text), Manifest.build(config, layers))
    model = store.find(name(text))
    assert model is not None
    return model


def blobs(store: ModelStore) -> set[str]:
    return {path.name for path in (store.root / "blobs").iterdir()}


def test_names_are_found_without_regard_to_case(store: ModelStore) -> None:
    install(store, "SmolLM2:135M", "a")

    found = store.find(name("smollm2:135m"))

    assert found is not None
    assert str(found.name) == "SmolLM2:135M"
    assert store.find(name("smollm2")) is None


def test_writing_a_known_name_keeps_its_spelling(store: ModelStore) -> None:
    install(store, "Tiny", "a")

    install(store, "tiny", "b")

    assert [str(model.name) for model in store.models()] == ["Tiny:latest"]


def test_models_are_listed_newest_first_with_digest_and_size(store: ModelStore) -> None:
    install(store, "old", "a")
    new = install(store, "new", "bb")

    listed = store.models()

    assert [str(model.name) for model in listed] == ["new:latest", "old:latest"]
    assert listed[0].manifest.digest == new.manifest.digest
    assert listed[0].manifest.size == 2 + new.manifest.config.size


def test_delete_removes_only_blobs_that_no_other_model_uses(store: ModelStore) -> None:
    first = install(store, "first", "shared", "own")
    second = install(store, "second", "shared")

    store.delete(first)

    assert blobs(store) == {blob.digest.replace(":", "-") for blob in second.manifest.blobs}
    assert not (store.root / "manifests/registry.ollama.ai/library/first").exists()


def test_corrupt_manifest_is_left_out_and_stops_pruning(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    model = install(store, "good", "a")
    damaged = store.root / "manifests/registry.ollama.ai/library/bad/latest"
    damaged.parent.mkdir()
    damaged.write_text("{")
    before = blobs(store)

    with caplog.at_level(logging.WARNING):
        listed = store.models()
        store.delete(model)

    assert [str(model.name) for model in listed] == ["good:latest"]
    assert store.find(name("bad")) is None
    assert blobs(store) == before
    assert "unused layers are kept" in caplog.text


def test_blobs_of_a_model_about_to_be_written_survive_a_delete(store: ModelStore) -> None:
    model = install(store, "first", "shared")

    with store.pinned(model.manifest):
        store.delete(model)

    assert blobs(store)


def test_upload_with_another_digest_is_refused_and_leaves_nothing(store: ModelStore) -> None:
    with pytest.raises(ValueError, match="digest mismatch, expected"):
        store.add_stream("sha256:" + "0" * 64, io.BytesIO(b"abc"))

    assert blobs(store) == set()


@pytest.mark.parametrize("digest", ["sha256:xyz", "", "sha256:" + "A" * 64, "sha256:../../x"])
def test_digest_of_another_form_is_refused(store: ModelStore, digest: str) -> None:
    with pytest.raises(ValueError, match="invalid digest format"):
        store.blob_path(digest)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"layers":[5],"config":{}}', b'{"layers":[{"digest":1}]}', b"[" * 9999],
)
def test_manifest_of_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptManifestError):
        Manifest.parse(raw)


def test_manifest_survives_being_written_and_read() -> None:
    layer = Layer("sha256:" + "0" * 64, 5, "x")
    manifest = Manifest.build(layer, [layer])

    assert Manifest.parse(manifest.raw) == manifest


def test_seed_installs_the_bundled_model_once(store: ModelStore) -> None:
    seeding.seed(store)
    first = store.models()

    seeding.seed(store)

    assert store.models() == first
    assert [str(model.name) for model in first] == ["smollm2:135m"]


def test_seed_leaves_a_store_with_models_alone(store: ModelStore) -> None:
    install(store, "mine", "a")

    seeding.seed(store)

    assert [str(model.name) for model in store.models()] == ["mine:latest"]


def test_seed_copies_where_it_cannot_link(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)

    seeding.seed(store)

    weights = store.models()[0].manifest.layer("model")
    assert weights is not None
    assert store.has_blob(weights)


def test_seed_does_without_the_wheel(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "find_spec", lambda _: None)

    seeding.seed(store)

    assert store.models() == []


def test_plan_takes_the_context_asked_for_up_to_the_trained_one(
    seeded_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = seeded_store.models()[0]
    monkeypatch.setenv("OLLAMA_CONTEXT_LENGTH", "1000")
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "2")

    default, asked, over = (plan(seeded_store, model, size) for size in (None, 2000, 1 << 20))

    assert [default.num_ctx, asked.num_ctx, over.num_ctx] == [1000, 2000, 8192]
    assert default.parallel == 2
    assert default.size < asked.size < over.size


def test_manifests_of_other_files_are_not_taken_for_models(store: ModelStore, tmp_path: Path) -> None:
    folder = store.root / "manifests/registry.ollama.ai/library/x"
    folder.mkdir(parents=True)
    (folder / ".new-123").write_text("half a file")

    assert store.models() == []
    assert tmp_path in store.root.parents

"""The one reader of manifests, and what the services refuse beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.manifest import CONFIG_TYPE, LAYER_TYPE, MAX_SIZE, CorruptManifestError, Layer, Manifest, digest_of
from app.services.ollama.registry import ManifestSummary

CONFIG = Layer(digest_of(b"{}"), 2, CONFIG_TYPE)
WEIGHTS = Layer(digest_of(b"weights"), 7, LAYER_TYPE + "model")


def _raw(**entry: Any) -> bytes:
    """A manifest whose only layer has the fields of *entry* instead of its own."""
    layer = {key: value for key, value in (WEIGHTS.to_json() | entry).items() if value is not None}
    return json.dumps({"config": CONFIG.to_json(), "layers": [layer]}).encode()


def test_summary_has_the_digest_of_the_bytes_and_the_config_first() -> None:
    raw = Manifest.build(CONFIG, [WEIGHTS]).raw

    assert ManifestSummary.parse(raw) == ManifestSummary(digest_of(raw), (CONFIG, WEIGHTS))


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        (LAYER_TYPE + "model", "model"),
        (LAYER_TYPE + "tensor; name=x", "tensor"),
        (CONFIG_TYPE, "config"),
        ("", "config"),
    ],
)
def test_kind_of_a_layer_is_what_it_is_to_the_model(media_type: str, kind: str) -> None:
    assert Layer("", 0, media_type).kind == kind


@pytest.mark.parametrize("size", [0, MAX_SIZE])
def test_layer_may_be_empty_or_as_large_as_any(size: int) -> None:
    assert Manifest.parse(_raw(size=size)).layers[0].size == size


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1},
        {"size": MAX_SIZE + 1},
        {"size": True},
        {"size": "7"},
        {"size": 7.0},
        {"size": None},
        {"digest": "sha256:" + "A" * 64},
        {"digest": WEIGHTS.digest + "\n"},
        {"digest": None},
    ],
)
def test_layer_of_another_form_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(CorruptManifestError):
        Manifest.parse(_raw(**entry))


def test_services_refuse_a_layer_without_media_type_and_too_many_layers() -> None:
    most = Manifest.build(CONFIG, [WEIGHTS] * 1000)
    too_many = Manifest.build(CONFIG, [WEIGHTS] * 1001)

    assert len(ManifestSummary.parse(most.raw).layers) == 1001
    for raw in (_raw(mediaType=None), _raw(mediaType=5), too_many.raw):
        Manifest.parse(raw)
        with pytest.raises(CorruptManifestError):
            ManifestSummary.parse(raw)

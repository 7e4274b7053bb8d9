"""What tells an update from none, which models are updated, and which former versions stay."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from app.config import ROOT, Timeouts
from app.manifest import MANIFEST_TYPE, Layer
from app.model_name import ModelName
from app.services.models.versions import VersionService, VersionStore, kept_name, superfluous
from app.services.ollama.names import key_of
from app.services.ollama.registry import ManifestSummary, RegistryService
from app.services.ollama.service import OllamaServers
from app.services.providers.store import ProviderStore
from app.services.settings import SettingsStore
from app.services.updates.service import changed_kinds, choose, is_current
from app.storage.database import Database, KeptVersion, utc_now
from app.upstream.session import UpstreamSession

IMAGE = "application/vnd.ollama.image."
URL = "https://registry.ollama.ai/v2/library/a/manifests/1"


def digest(mark: str) -> str:
    return f"sha256:{hashlib.sha256(mark.encode()).hexdigest()}"


def layer(kind: str, mark: str, size: int = 10) -> Layer:
    media_type = "application/vnd.docker.container.image.v1+json" if kind == "config" else IMAGE + kind
    return Layer(digest(mark), size, media_type)


def manifest(mark: str, **layers: str) -> ManifestSummary:
    return ManifestSummary(digest(mark), tuple(layer(kind, content) for kind, content in layers.items()))


def served(wire: responses.RequestsMock, body: bytes) -> ManifestSummary:
    wire.get(URL, body, content_type=MANIFEST_TYPE)
    with UpstreamSession() as session:
        return RegistryService(session, Timeouts).manifest(ModelName.parse("a:1"))


DOCUMENT: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": MANIFEST_TYPE,
    "config": {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": digest("c"),
        "size": 1,
    },
    "layers": [{"mediaType": IMAGE + "model", "digest": digest("m"), "size": 2, "from": "x"}],
}


def test_manifest_is_the_same_as_its_older_encodings(wire: responses.RequestsMock) -> None:
    compact = json.dumps(DOCUMENT, separators=(",", ":")).encode()
    shuffled = {key: DOCUMENT[key] for key in reversed(DOCUMENT)} | {"annotations": {"a": "b"}}
    raw = json.dumps(shuffled, indent=3).encode()

    found = served(wire, raw)

    for content in (raw, compact, compact + b"\n"):
        assert found.is_same(f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert not found.is_same(digest("other"))


def test_layers_have_the_kinds_that_ollama_names(wire: responses.RequestsMock) -> None:
    found = served(wire, json.dumps(DOCUMENT).encode())

    assert [each.kind for each in found.layers] == ["config", "model"]


@pytest.mark.parametrize(
    ("listed", "installed", "current"),
    [
        ("new", None, True),
        ("old", None, False),
        ("old", manifest("old", config="c", model="m"), True),  # the same layers, encoded anew
        ("old", manifest("old", config="c", model="n"), False),
        ("old", manifest("another", config="c", model="m"), False),  # of another Ollama's folder
    ],
)
def test_model_is_current_when_its_digest_or_its_layers_are_the_registrys(
    listed: str, installed: ManifestSummary | None, current: bool
) -> None:
    available = manifest("new", config="c", model="m")

    assert is_current(digest(listed), installed, available) is current


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (
            {"config": "1", "model": "m", "params": "p"},
            {"config": "2", "model": "m", "params": "q"},
            ["params"],
        ),
        ({"config": "1", "model": "m"}, {"config": "2", "model": "n", "license": "l"}, ["license", "model"]),
        ({"config": "1", "model": "m", "system": "s"}, {"config": "1", "model": "m"}, ["system"]),
        ({"config": "1", "model": "m"}, {"config": "2", "model": "m"}, ["config"]),
    ],
)
def test_changed_kinds_are_those_whose_layers_differ(
    old: dict[str, str], new: dict[str, str], changed: list[str]
) -> None:
    assert changed_kinds(manifest("a", **old), manifest("b", **new), []) == changed


def test_changed_kinds_are_those_that_are_missing_where_no_manifest_can_be_read() -> None:
    new = manifest("b", config="2", model="m", template="t")

    assert changed_kinds(None, new, [layer("config", "2"), layer("template", "t")]) == ["template"]


def item(model: str, status: str = "outdated", **more: Any) -> dict[str, Any]:
    return {"model": model, "status": status, "is_outdated": status == "outdated", "needed_bytes": 10, **more}


def test_choose_says_why_a_model_is_left_out() -> None:
    pinned = item("pinned:1", "pinned", is_outdated=True)
    items = [item("a:1"), item("b:1"), item("c:1", "current"), pinned, item("d:1", "unknown")]
    loaded = {"registry.ollama.ai/library/b:1"}

    chosen, skipped = choose(items, loaded, None, all_models=True)

    assert [each["model"] for each in chosen] == ["a:1"]
    assert [each["reason"] for each in skipped] == ["loaded", "current", "pinned", "unknown"]


def test_choose_takes_a_pinned_model_that_is_named_unless_it_is_current() -> None:
    items = [item("a:1", "pinned", is_outdated=True), item("b:1", "pinned")]

    chosen, skipped = choose(items, set(), None, all_models=False)

    assert chosen == items[:1]
    assert skipped == [{"model": "b:1", "reason": "pinned"}]


@given(st.lists(st.integers(0, 100)), st.integers(0, 300))
def test_choose_never_takes_more_than_fits(sizes: list[int], free: int) -> None:
    items = [item(f"a{i}:1", needed_bytes=size) for i, size in enumerate(sizes)]

    chosen, skipped = choose(items, set(), free, all_models=True)

    assert sum(each["needed_bytes"] for each in chosen) <= free
    assert len(chosen) + len(skipped) == len(items)
    assert {each["reason"] for each in skipped} <= {"disk_full"}


names = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,79}", fullmatch=True)


@given(names, names, st.binary(min_size=1))
def test_kept_name_is_a_valid_name_of_the_same_model(model: str, tag: str, content: bytes) -> None:
    name = ModelName.parse(f"{model}:{tag}")
    bare = hashlib.sha256(content).hexdigest()

    kept = kept_name(name, f"sha256:{bare}")

    assert ModelName.parse(str(kept)) == kept
    assert kept.model == model
    assert kept.tag.endswith(f"-prev-{bare[:12]}")


def test_kept_names_of_tags_that_are_cut_alike_differ() -> None:
    tags = ["x" * 79 + "1", "x" * 79 + "2"]

    kept = {kept_name(ModelName.parse(f"a:{tag}"), digest("d")) for tag in tags}

    assert len(kept) == 2


def versions(*digests: str) -> list[KeptVersion]:
    now = utc_now()
    return [
        KeptVersion(name=f"{mark}{i}", digest=digest(mark), created_at=now - timedelta(hours=i))
        for i, mark in enumerate(digests)
    ]


@pytest.mark.parametrize(
    ("kept", "limit", "thrown_away"),
    [("abc", 1, "bc"), ("abc", 3, ""), ("abc", 0, "abc"), ("iab", 1, "ib"), ("i", 1, "i"), ("", 1, "")],
)
def test_superfluous_are_those_beyond_the_limit_and_the_installed_one(
    kept: str, limit: int, thrown_away: str
) -> None:
    found = superfluous(versions(*kept), digest("i"), limit)

    assert [row.name[0] for row in found] == list(thrown_away)


def test_former_version_that_is_protected_is_not_thrown_away(
    wire: responses.RequestsMock, tmp_path: Path
) -> None:
    models = [
        {"name": name, "size": 1, "digest": mark * 64, "modified_at": "2026-01-01T00:00:00Z"}
        for name, mark in [("a:1", "0"), ("a:1-prev-1", "1"), ("a:1-prev-2", "2")]
    ]
    wire.get("http://ollama.test/api/tags", json={"models": models})
    wire.delete("http://ollama.test/api/delete")
    database = Database("", tmp_path)
    database.migrate()
    store = VersionStore(database)
    for mark in "12":
        name, past = f"a:1-prev-{mark}", utc_now() - timedelta(days=1)
        row = KeptVersion(name=name, model="a:1", key=key_of("a:1"), digest=mark * 64, created_at=past)
        store.save(row)
    settings = SettingsStore(tmp_path / "settings.json", Timeouts())
    settings.update(keep_versions=0, protected_models=["A:1-prev-1"])
    changes = tmp_path / "providers.json"
    changes.write_text('{"ollama": {"base_url": "http://ollama.test/v1"}}')
    providers = ProviderStore(ROOT / "providers.json", changes, (), {})

    with UpstreamSession() as session:
        versions = VersionService(store, OllamaServers(session, providers, settings), settings)
        versions.settle()

    assert [call.request.body for call in wire.calls if call.request.method == "DELETE"] == [
        b'{"model": "a:1-prev-2"}'
    ]
    assert [row.name for row in store.all()] == ["a:1-prev-1"]
    here = {key_of("a:1-prev-1"): "1" * 64}
    assert versions.previous({**here, key_of("a:1"): "0" * 64}) == {key_of("a:1"): "a:1-prev-1"}
    assert versions.previous({**here, key_of("a:1"): "1" * 64}) == {}  # it is in force: nothing to go back to
    database.close()

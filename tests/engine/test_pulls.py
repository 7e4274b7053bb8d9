"""``POST /api/pull`` against a registry with faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.engine.process import EngineProcess, wait_until
from tests.registry import Registry, digest_of
from tests.wire import recording

pytestmark = pytest.mark.live

WEIGHTS = bytes(range(256)) * 4096 * 8  # 8 MB: no model, but the store does not look inside
SLOW = 4_000_000
NAME = "library/tiny:test"


@pytest.fixture
def tiny(registry: Registry) -> Registry:
    """A registry with one model of 8 MB and a small layer."""
    registry.add_model(NAME, {"model": WEIGHTS, "params": b'{"stop":["x"]}'})
    return registry


@pytest.fixture(autouse=True)
def _forget(engine: EngineProcess) -> Iterator[None]:
    """Remove what a test pulled, and what is left of it."""
    yield
    for model in engine.get("/api/tags").json()["models"]:
        if "/" in model["name"]:
            engine.request("DELETE", "/api/delete", json={"model": model["name"]})
    for path in (engine.models_dir / "blobs").glob("*-partial"):
        path.unlink()


def pull(engine: EngineProcess, registry: Registry, **fields: Any) -> list[dict[str, Any]]:
    """Pull to the end; return the lines."""
    return [json.loads(line) for line in begin(engine, registry, **fields).iter_lines()]


def begin(engine: EngineProcess, registry: Registry, **fields: Any) -> requests.Response:
    body = {"model": registry.name(NAME), "insecure": True, **fields}
    return engine.post("/api/pull", body, stream=True)


def statuses(lines: list[dict[str, Any]]) -> list[str]:
    """The statuses, each run of the same once."""
    found = [line.get("status", "error") for line in lines]
    return [status for index, status in enumerate(found) if found[index - 1 : index] != [status]]


def is_installed(engine: EngineProcess, registry: Registry) -> bool:
    names = [model["name"] for model in engine.get("/api/tags").json()["models"]]
    return registry.name(NAME) in names


def partial(engine: EngineProcess) -> int:
    """How much of the weights lies in the store."""
    name = digest_of(WEIGHTS).replace(":", "-") + "-partial"
    path = engine.models_dir / "blobs" / name
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("redirect", [False, True])
def test_pull_reports_progress_and_installs_what_the_registry_has(
    engine: EngineProcess, tiny: Registry, redirect: bool
) -> None:
    tiny.faults.bytes_per_second, tiny.faults.redirect = SLOW * 4, redirect

    lines = pull(engine, tiny)

    short = digest_of(WEIGHTS)[7:19]
    assert statuses(lines)[:2] == ["pulling manifest", f"pulling {short}"]
    assert statuses(lines)[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    progress = [line["completed"] for line in lines if line.get("total") == len(WEIGHTS)]
    assert progress == sorted(progress)
    recorded = json.loads(recording("pull_stream_throttled").body.splitlines()[1])
    assert lines[1].keys() == recorded.keys()
    listed = engine.get("/api/tags").json()["models"][0]
    assert (listed["name"], listed["size"]) == (tiny.name(NAME), len(WEIGHTS) + 14 + 23)


def test_pull_again_gives_one_line_for_each_layer(engine: EngineProcess, tiny: Registry) -> None:
    pull(engine, tiny)
    tiny.bytes_served.clear()

    lines = pull(engine, tiny)

    assert [line["completed"] for line in lines if "digest" in line] == [len(WEIGHTS), 14, 23]
    assert not tiny.bytes_served


def test_pull_without_stream_answers_the_last_line(engine: EngineProcess, tiny: Registry) -> None:
    response = begin(engine, tiny, stream=False)

    assert response.status_code == 200
    assert response.content == recording("pull_nostream_ok").body


@pytest.mark.parametrize("status", [403, 500])
def test_pull_tells_what_the_registry_said(engine: EngineProcess, tiny: Registry, status: int) -> None:
    tiny.faults.status = status

    response = begin(engine, tiny)

    assert response.content == recording(f"pull_registry_{status}").body


def test_pull_of_unknown_model_says_file_does_not_exist(engine: EngineProcess, registry: Registry) -> None:
    streamed = begin(engine, registry)
    whole = begin(engine, registry, stream=False)

    assert streamed.content == recording("pull_unknown_stream").body
    assert (whole.status_code, whole.content) == (500, recording("pull_unknown_nostream").body)


def test_pull_over_https_of_plain_registry_says_so(engine: EngineProcess, tiny: Registry) -> None:
    lines = pull(engine, tiny, insecure=False)

    recorded = json.loads(recording("pull_insecure_not_set").body.splitlines()[-1])["error"]
    assert lines[-1]["error"].rpartition('": ')[2] == recorded.rpartition('": ')[2]


def test_cut_connection_is_resumed_without_loss(engine: EngineProcess, tiny: Registry) -> None:
    tiny.faults.cuts, tiny.faults.cut_after = 3, 1 << 20

    lines = pull(engine, tiny)

    assert lines[-1] == {"status": "success"}
    assert tiny.bytes_served[digest_of(WEIGHTS)] == len(WEIGHTS)
    assert any(header.startswith("bytes=") for _, _, header in tiny.requests)


def test_server_without_ranges_starts_over(engine: EngineProcess, tiny: Registry) -> None:
    tiny.faults.cuts, tiny.faults.cut_after, tiny.faults.ranges = 1, 1 << 20, False

    lines = pull(engine, tiny)

    assert lines[-1] == {"status": "success"}
    assert tiny.bytes_served[digest_of(WEIGHTS)] > len(WEIGHTS)


def test_registry_that_always_fails_ends_the_pull(engine: EngineProcess, tiny: Registry) -> None:
    tiny.faults.blob_status = 503

    lines = pull(engine, tiny)

    assert lines[-1]["error"] == "max retries exceeded: 503: made to fail"
    assert not is_installed(engine, tiny)


def test_changed_bytes_are_refused_and_removed(engine: EngineProcess, tiny: Registry) -> None:
    tiny.faults.corrupt.add(digest_of(WEIGHTS))

    lines = pull(engine, tiny)

    assert lines[-1]["error"].startswith("digest mismatch, file must be downloaded again: want ")
    assert not is_installed(engine, tiny)
    assert partial(engine) == 0


@pytest.mark.parametrize(("change", "words"), [(1000, "shorter"), (-1000, "longer")])
def test_manifest_that_lies_about_a_size_is_refused(
    engine: EngineProcess, tiny: Registry, change: int, words: str
) -> None:
    manifest = tiny.manifest(NAME)
    manifest["layers"][0]["size"] += change
    tiny.set_manifest(NAME, manifest)

    lines = pull(engine, tiny)

    assert f"is {words} than its manifest says" in lines[-1]["error"]
    assert not is_installed(engine, tiny)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"config": {}, "layers": "x"},
        {"layers": [{"digest": "sha256:../../x", "size": 1}]},
        {"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]},
        {"layers": [{"digest": "sha256:" + "0" * 64, "size": 1 << 60}]},
    ],
)
def test_manifest_that_is_none_is_refused(
    engine: EngineProcess, registry: Registry, manifest: object
) -> None:
    registry.set_manifest(NAME, manifest)

    lines = pull(engine, registry)

    assert lines[-1]["error"].startswith("pull model manifest: ")


def test_disconnect_stops_the_transfer_and_the_next_pull_resumes(
    engine: EngineProcess, tiny: Registry
) -> None:
    tiny.faults.bytes_per_second = SLOW
    response = begin(engine, tiny)
    wait_until(lambda: partial(engine) > 1 << 20)

    response.close()
    wait_until(lambda: "stopped: nobody follows the pull" in engine.log)
    tiny.faults.bytes_per_second = 0
    lines = pull(engine, tiny)

    assert lines[-1] == {"status": "success"}
    resumed = [header for _, _, header in tiny.requests if header]
    assert int(resumed[0].removeprefix("bytes=").removesuffix("-")) > 1 << 20


def test_disconnect_ends_a_transfer_that_stalls(engine: EngineProcess, tiny: Registry) -> None:
    tiny.faults.bytes_per_second = 1  # after the first 16 kB nothing comes for hours
    response = begin(engine, tiny)
    wait_until(lambda: partial(engine))

    response.close()
    wait_until(lambda: not list((engine.models_dir / "blobs").glob("*.lock")))
    tiny.faults.bytes_per_second = 0
    lines = pull(engine, tiny)

    assert lines[-1] == {"status": "success"}


def test_full_disk_ends_the_pull_at_once(engine: EngineProcess, tiny: Registry) -> None:
    name = digest_of(WEIGHTS).replace(":", "-") + "-partial"
    path = engine.models_dir / "blobs" / name
    path.symlink_to("/dev/full")

    lines = pull(engine, tiny)

    assert lines[-1] == {"error": f"write {path}: no space left on device"}


def test_two_clients_share_a_pull_and_one_may_leave(engine: EngineProcess, tiny: Registry) -> None:
    tiny.faults.bytes_per_second = SLOW
    first = begin(engine, tiny)
    wait_until(lambda: partial(engine) > 1 << 18)
    second = begin(engine, tiny)
    lines = second.iter_lines()
    assert next(lines)

    first.close()
    tiny.faults.bytes_per_second = 0
    rest = [json.loads(line) for line in lines]

    assert rest[-1] == {"status": "success"}
    served = [path for _, path, _ in tiny.requests if path.endswith(digest_of(WEIGHTS))]
    assert len(served) == 1


def test_changed_manifest_replaces_the_model_and_removes_what_it_used(
    engine: EngineProcess, tiny: Registry
) -> None:
    pull(engine, tiny)
    former = engine.models_dir / "blobs" / digest_of(WEIGHTS).replace(":", "-")
    assert former.exists()
    digest = tiny.add_model(NAME, {"model": WEIGHTS[:1000], "params": b'{"stop":["x"]}'})

    lines = pull(engine, tiny)

    assert statuses(lines)[-3:] == ["writing manifest", "removing unused layers", "success"]
    assert engine.get("/api/tags").json()["models"][0]["digest"] == digest
    assert not former.exists()

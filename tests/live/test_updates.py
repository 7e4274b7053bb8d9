"""Plans, updates, rollbacks and the disk, with a real engine and a registry whose models change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.engine.process import EngineProcess, wait_until
from tests.live.process import BackendProcess
from tests.registry import Registry, digest_of, smollm2_file

pytestmark = pytest.mark.live

API = "/api/providers/ollama"
SIZE = smollm2_file().stat().st_size
TINY = "library/tiny:1"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.add_smollm2(TINY, params=b'{"temperature":0.1}', license=b"\n  Apache License 2.0\nmore")
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "models") as engine:
        yield engine  # has smollm2:135m: the weights are here


@pytest.fixture
def backend(tmp_path: Path, engine: EngineProcess) -> Iterator[BackendProcess]:
    env = {"OLLAMA_MODELS": str(engine.models_dir), "BACKEND_ALLOWED_REGISTRIES": "registry.invalid"}
    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama"), **env) as backend:
        yield backend


@pytest.fixture
def tiny(backend: BackendProcess, registry: Registry) -> str:
    """The name of a model that is installed from the registry."""
    name = registry.name(TINY)
    response = backend.post(f"{API}/pull", {"model": name, "insecure": True})
    assert response.status_code == 200, response.text
    return name


def _change(registry: Registry) -> str:
    """Serve the model with other parameters; return its new digest."""
    texts = {"params": b'{"temperature":0.2}', "license": b"\n  Apache License 2.0\nmore"}
    return f"sha256:{registry.add_smollm2(TINY, **texts)}"


def _digests(backend: BackendProcess) -> dict[str, str]:
    models = backend.get(f"{API}/models").json()["models"]
    return {model["name"]: model["digest"] for model in models}


def _update_of(backend: BackendProcess, name: str) -> dict[str, Any]:
    updates = backend.get(f"{API}/updates?refresh=true").json()["models"]
    found: dict[str, Any] = next(model for model in updates if model["model"] == name)
    return found


def _is_over(backend: BackendProcess, pull: dict[str, Any]) -> bool:
    status = backend.get(f"{API}/pulls/{pull['id']}").json()["status"]
    return status in {"done", "failed", "cancelled"}


def _update(backend: BackendProcess, name: str) -> dict[str, Any]:
    response = backend.post(f"{API}/updates", {"models": [name]})
    assert response.status_code == 202, response.text
    started: dict[str, Any] = response.json()["started"][0]
    wait_until(lambda: _is_over(backend, started["pull"]), 30)
    return started


def _kept(backend: BackendProcess) -> set[str]:
    return {name for name in _digests(backend) if "-prev-" in name}


def _set(backend: BackendProcess, **settings: Any) -> None:
    response = requests.put(f"{backend.url}/api/settings", json=settings, timeout=30)
    assert response.status_code == 200, response.text


def test_dry_run_tells_what_a_pull_would_do(backend: BackendProcess, registry: Registry) -> None:
    body = {"model": registry.name(TINY), "insecure": True, "dry_run": True, "num_ctx": 8192}

    plan = backend.post(f"{API}/pull", body).json()

    texts = [layer for layer in plan["layers"] if layer["kind"] != "model"]
    assert plan["digest"] == digest_of(registry.manifests[TINY])
    assert plan["size"] == sum(layer["size"] for layer in plan["layers"])
    assert plan["download_bytes"] == sum(layer["size"] for layer in texts) < 1000  # the weights are here
    assert {layer["kind"]: layer["present"] for layer in plan["layers"]} == {
        "model": True, "config": False, "params": False, "license": False,
    }  # fmt: skip
    assert (plan["installed"], plan["current"]) == (False, False)
    assert plan["disk"]["fits"] is True
    assert plan["memory"]["needed_bytes"] == SIZE + 2 * 30 * 8192 * 3 * 64 * 2
    assert plan["memory"]["estimated"] is False
    assert plan["memory"]["available_bytes"] > 0
    assert plan["license"] == "Apache License 2.0"
    assert (plan["requires"], plan["version_ok"]) == (None, None)
    assert backend.get(f"{API}/pulls").json()["total"] == 0
    assert sum(registry.bytes_served.values()) < SIZE / 4  # this registry sends beyond the range asked for


def test_dry_run_knows_what_is_installed(backend: BackendProcess, tiny: str, registry: Registry) -> None:
    body = {"model": tiny, "insecure": True, "dry_run": True}
    before = backend.post(f"{API}/pull", body).json()
    _change(registry)

    after = backend.post(f"{API}/pull", body).json()

    assert (before["installed"], before["current"], before["download_bytes"]) == (True, True, 0)
    assert (after["installed"], after["current"]) == (True, False)


def test_dry_run_of_a_model_that_needs_a_newer_ollama_says_so(
    backend: BackendProcess, registry: Registry
) -> None:
    registry.add_model("library/new:1", {"model": b"not a GGUF"}, b'{"requires":"99.1.0"}')
    body = {"model": registry.name("library/new:1"), "insecure": True, "dry_run": True}

    plan = backend.post(f"{API}/pull", body).json()

    assert (plan["requires"], plan["version_ok"]) == ("99.1.0", False)
    assert plan["memory"]["estimated"] is True
    assert plan["memory"]["needed_bytes"] == 12


def test_dry_run_of_an_unknown_model_is_404(backend: BackendProcess, registry: Registry) -> None:
    body = {"model": registry.name("library/nope:1"), "insecure": True, "dry_run": True}

    response = backend.post(f"{API}/pull", body)

    assert response.status_code == 404
    assert response.json()["error_type"] == "model_not_in_registry"


def test_pull_that_does_not_fit_is_refused_unless_it_is_forced(
    backend: BackendProcess, registry: Registry
) -> None:
    manifest = registry.manifest(TINY)
    huge = {**manifest["layers"][0], "digest": f"sha256:{'0' * 64}", "size": 1 << 50}
    registry.set_manifest("library/huge:1", {**manifest, "layers": [huge]})
    body = {"model": registry.name("library/huge:1"), "insecure": True}

    refused = backend.post(f"{API}/pull", body)
    pulls = backend.get(f"{API}/pulls").json()["total"]
    forced = backend.post(f"{API}/pull", {**body, "force": True, "background": True})

    assert refused.status_code == 507
    assert refused.json()["error_type"] == "disk_full"
    assert refused.json()["details"]["needed_bytes"] > 1 << 50
    assert refused.json()["details"]["free_bytes"] > 0
    assert '"force": true' in refused.json()["hint"]
    assert pulls == 0
    assert forced.status_code == 202


def test_models_are_compared_with_their_registry(
    backend: BackendProcess, engine: EngineProcess, tiny: str, registry: Registry
) -> None:
    engine.post("/api/copy", {"source": tiny, "destination": registry.name("library/mine:1")})
    before = _update_of(backend, tiny)
    digest = _change(registry)

    cached = backend.get(f"{API}/updates").json()
    after = _update_of(backend, tiny)

    assert (before["status"], before["download_bytes"], before["changed"]) == ("current", 0, [])
    assert {m["model"]: m["status"] for m in cached["models"]}[tiny] == "current"  # of this hour
    assert after["status"] == "outdated"
    assert after["available_digest"] == digest
    assert after["changed"] == ["params"]
    assert after["download_bytes"] == len(b'{"temperature":0.2}')
    assert _update_of(backend, registry.name("library/mine:1"))["status"] == "local"
    assert _update_of(backend, "smollm2:135m")["status"] == "unknown"  # not allowed


def test_registry_that_is_down_leaves_the_model_unknown_with_the_reason(
    backend: BackendProcess, tiny: str, registry: Registry
) -> None:
    registry.faults.status = 503

    found = _update_of(backend, tiny)

    assert found["status"] == "unknown"
    assert registry.host in found["reason"]


def test_update_use_and_roll_back_and_forth(backend: BackendProcess, tiny: str, registry: Registry) -> None:
    old = _digests(backend)[tiny]
    new = _change(registry)

    started = _update(backend, tiny)
    updated = _digests(backend)[tiny]
    chat = {"message": "Say hello in five words.", "model": tiny, "options": {"num_predict": 16}}
    used = backend.post("/api/chat", chat)
    previous = _update_of(backend, tiny)["previous"]
    back = backend.post(f"{API}/rollback", {"model": tiny}).json()
    rolled_back = _digests(backend)[tiny]
    chatted = backend.post("/api/chat", chat)
    forth = backend.post(f"{API}/rollback", {"model": tiny}).json()

    assert updated == new
    assert used.status_code == chatted.status_code == 200
    assert previous == started["kept_as"]
    assert (back["digest"], back["replaced_digest"], rolled_back) == (old, new, old)
    assert (forth["digest"], _digests(backend)[tiny]) == (new, new)
    assert _kept(backend) == {previous}


def test_update_keeps_as_many_versions_as_the_settings_say(
    backend: BackendProcess, tiny: str, registry: Registry
) -> None:
    first = _digests(backend)[tiny]
    for temperature in (b"0.3", b"0.4"):
        registry.add_smollm2(TINY, params=b'{"temperature":' + temperature + b"}")
        last = _update(backend, tiny)

    wait_until(lambda: len(_kept(backend)) == 1)
    assert _kept(backend) == {last["kept_as"]}
    assert first[7:19] not in last["kept_as"]


def test_update_that_fails_leaves_the_model_and_no_copy(
    backend: BackendProcess, tiny: str, registry: Registry
) -> None:
    before = _digests(backend)
    _change(registry)
    registry.faults.blob_status = 404

    started = _update(backend, tiny)

    assert backend.get(f"{API}/pulls/{started['pull']['id']}").json()["status"] == "failed"
    wait_until(lambda: not _kept(backend))
    assert _digests(backend) == before


def test_rollback_without_a_former_version_is_404(backend: BackendProcess, tiny: str) -> None:
    response = backend.post(f"{API}/rollback", {"model": tiny})

    assert response.status_code == 404
    assert response.json()["error_type"] == "no_previous_version"


def test_update_of_all_says_what_it_leaves_out(
    backend: BackendProcess, tiny: str, registry: Registry
) -> None:
    _change(registry)
    _set(backend, pinned_models=[tiny])
    pinned = backend.post(f"{API}/updates", {"all": True}).json()
    status = _update_of(backend, tiny)["status"]
    _set(backend, pinned_models=[])
    backend.post("/api/chat", {"message": "Hi", "model": tiny})  # loads it

    loaded = backend.post(f"{API}/updates", {"all": True}).json()
    dry = backend.post(f"{API}/updates", {"models": [tiny], "include_loaded": True, "dry_run": True})

    assert pinned["started"] == loaded["started"] == []
    assert {"model": tiny, "reason": "pinned"} in pinned["skipped"]
    assert status == "pinned"
    assert {"model": tiny, "reason": "loaded"} in loaded["skipped"]
    assert dry.status_code == 200
    assert [each["model"] for each in dry.json()["started"]] == [tiny]
    assert backend.get(f"{API}/pulls").json()["total"] == 1  # the fixture's


def test_models_are_updated_by_themselves_once_that_is_switched_on(
    backend: BackendProcess, tiny: str, registry: Registry
) -> None:
    new = _change(registry)
    _set(backend, updates={"enabled": True, "window": None})

    wait_until(lambda: _digests(backend)[tiny] == new, 40)

    assert len(_kept(backend)) == 1


def test_update_of_an_absent_model_is_404(backend: BackendProcess) -> None:
    response = backend.post(f"{API}/updates", {"models": ["nope:1"]})

    assert response.status_code == 404


def test_disk_counts_a_copy_once(backend: BackendProcess, engine: EngineProcess) -> None:
    engine.post("/api/copy", {"source": "smollm2:135m", "destination": "twin:1"})
    backend.post("/api/chat", {"message": "Hi", "model": "twin:1"})

    def disk() -> dict[str, Any]:
        answer: dict[str, Any] = backend.get(f"{API}/disk").json()
        return answer

    wait_until(lambda: any(model["last_used_at"] for model in disk()["models"]))
    found = disk()
    used = {model["model"]: model["last_used_at"] for model in found["models"]}
    blobs = sum(path.stat().st_size for path in (engine.models_dir / "blobs").iterdir())
    assert found["path"] == str(engine.models_dir)
    assert found["duplicates"] == [["smollm2:135m", "twin:1"]]
    assert [model["reclaimable_bytes"] for model in found["models"]] == [0, 0]
    assert found["total_bytes"] == found["models"][0]["size"] == blobs
    assert found["free_bytes"] > 0
    assert found["partial_bytes"] == 0
    assert used["twin:1"].endswith("Z")
    assert used["smollm2:135m"] is None


def test_update_that_failed_and_is_resumed_can_be_rolled_back(
    backend: BackendProcess, registry: Registry, tiny: str
) -> None:
    before = _digests(backend)[tiny]
    registry.faults.blob_status = 404
    after = _change(registry)
    failed = _update(backend, tiny)["pull"]
    wait_until(lambda: _kept(backend) == set(), 30)  # nothing came of it
    registry.faults.blob_status = 0

    resumed = backend.post(f"{API}/pulls/{failed['id']}/resume", None).json()
    wait_until(lambda: _is_over(backend, resumed), 30)
    updated = _digests(backend)[tiny]
    rolled_back = backend.post(f"{API}/rollback", {"model": tiny})

    assert updated == after
    assert rolled_back.status_code == 200, rolled_back.text
    assert _digests(backend)[tiny] == before

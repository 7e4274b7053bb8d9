"""Downloads are never lost: whatever dies, leaves or breaks, a pull goes on and ends once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.engine.process import EngineProcess, wait_until
from tests.free_port import free_port
from tests.live.process import BackendProcess
from tests.registry import Registry, digest_of, smollm2_file

pytestmark = pytest.mark.live

PULLS = "/api/providers/ollama/pulls"
SIZE = smollm2_file().stat().st_size
LOST_AT_MOST = 5_000_000


@pytest.fixture(scope="module")
def weights() -> str:
    return digest_of(smollm2_file())


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.add_smollm2("library/tiny:1")
        registry.faults.bytes_per_second = 20_000_000
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "models") as engine:
        engine.request("DELETE", "/api/delete", json={"model": "smollm2:135m"})  # the same weights
        yield engine


@pytest.fixture
def backend(tmp_path: Path, engine: EngineProcess) -> Iterator[BackendProcess]:
    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as backend:
        yield backend


def _start(backend: BackendProcess, registry: Registry) -> dict[str, Any]:
    body = {"model": registry.name("library/tiny:1"), "insecure": True, "background": True}
    response = backend.post("/api/providers/ollama/pull", body)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"{PULLS}/{response.json()['id']}"
    pull: dict[str, Any] = response.json()
    return pull


def _pull(backend: BackendProcess, id: str) -> dict[str, Any]:
    pull: dict[str, Any] = backend.get(f"{PULLS}/{id}").json()
    return pull


def _wait_for(backend: BackendProcess, id: str, percent: float) -> None:
    wait_until(lambda: (_pull(backend, id)["percent"] or 0) >= percent, 60)


def _wait_for_end(backend: BackendProcess, id: str, status: str = "done") -> dict[str, Any]:
    wait_until(lambda: _pull(backend, id)["status"] in {"done", "failed", "cancelled"}, 90)
    pull = _pull(backend, id)
    assert pull["status"] == status, (pull, backend.log)
    return pull


def _events(backend: BackendProcess, id: str, after: int = 0) -> Iterator[tuple[int, str, dict[str, Any]]]:
    headers = {"Last-Event-ID": str(after)} if after else {}
    with backend.get(f"{PULLS}/{id}/events", headers=headers, stream=True) as response:
        number, name = 0, ""
        for line in response.iter_lines():
            field, _, value = line.decode().partition(": ")
            if field == "id":
                number = int(value)
            elif field == "event":
                name = value
            elif field == "data":
                yield number, name, requests.models.complexjson.loads(value)


def _assert_honest(events: list[tuple[int, str, dict[str, Any]]]) -> None:
    """No gap, no repeat, nothing that falls, one terminal event."""
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert {name for _, name, _ in events[:-1]} == {"progress"}
    assert events[-1][1] in {"done", "error", "cancelled"}
    for key in ("completed", "percent"):
        values = [data[key] or 0 for _, name, data in events if name == "progress"]
        assert values == sorted(values)


def _installed(engine: EngineProcess) -> list[str]:
    return [model["name"] for model in engine.get("/api/tags").json()["models"]]


def test_pull_survives_a_killed_backend(
    tmp_path: Path, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as first:
        id = _start(first, registry)["id"]
        _wait_for(first, id, 30)
        assert first.process is not None
        first.process.kill()
        first.process.wait()

    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as second:
        pull = _wait_for_end(second, id)
        events = list(_events(second, id))

    _assert_honest(events)
    assert pull["completed"] == pull["total"]
    assert pull["percent"] == 100
    assert registry.bytes_served[weights] - SIZE < LOST_AT_MOST
    assert _installed(engine) == [registry.name("library/tiny:1")]


def test_pull_survives_a_restarted_ollama(tmp_path: Path, registry: Registry, weights: str) -> None:
    port = free_port()
    with EngineProcess(tmp_path / "models", port) as engine:
        engine.request("DELETE", "/api/delete", json={"model": "smollm2:135m"})
        with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as backend:
            id = _start(backend, registry)["id"]
            _wait_for(backend, id, 30)
            os.kill(engine.pid, 9)
            assert engine.process is not None
            engine.process.wait()
            with EngineProcess(tmp_path / "models", port):
                pull = _wait_for_end(backend, id)
            events = list(_events(backend, id))

    _assert_honest(events)
    assert pull["attempts"] > 1
    assert registry.bytes_served[weights] - SIZE < LOST_AT_MOST


def test_pull_survives_five_cut_connections(
    backend: BackendProcess, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    registry.faults.cut_after, registry.faults.cuts = 15_000_000, 5
    id = _start(backend, registry)["id"]

    _wait_for_end(backend, id)

    _assert_honest(list(_events(backend, id)))
    assert registry.faults.cuts == 0
    assert registry.bytes_served[weights] - SIZE < LOST_AT_MOST


def test_pull_goes_on_when_its_clients_leave_and_is_joined_by_others(
    backend: BackendProcess, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    body = {"model": registry.name("library/tiny:1"), "insecure": True}
    with pytest.raises(requests.ReadTimeout):
        backend.post("/api/providers/ollama/pull", body, timeout=1)
    with backend.post("/api/providers/ollama/pull", {**body, "stream": True}, stream=True) as leaving:
        next(leaving.iter_lines())

    joined = backend.post("/api/providers/ollama/pull", body)

    assert joined.status_code == 200
    assert joined.json()["status_log"][-1]["status"] == "success"
    assert backend.get(PULLS).json()["total"] == 1
    assert registry.bytes_served[weights] == SIZE


def test_watchers_cost_one_download_and_miss_nothing(
    backend: BackendProcess, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    id = _start(backend, registry)["id"]
    with ThreadPoolExecutor(20) as pool:
        watched = list(pool.map(lambda _: list(_events(backend, id)), range(20)))
    whole = watched[0]

    middle = len(whole) // 2
    again = list(_events(backend, id, after=middle))
    nothing = backend.get(f"{PULLS}/{id}/events", headers={"Last-Event-ID": str(len(whole))})

    _assert_honest(whole)
    assert all(events == whole for events in watched)
    assert again == whole[middle:]
    assert nothing.status_code == 204
    assert whole[-1][1:][0] == "done"
    assert whole[-1][2]["success"] is True
    assert registry.bytes_served[weights] == SIZE


def test_pull_pauses_and_resumes_where_it_was(
    backend: BackendProcess, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    id = _start(backend, registry)["id"]
    _wait_for(backend, id, 20)

    assert backend.post(f"{PULLS}/{id}/pause", None).status_code == 200
    wait_until(lambda: _pull(backend, id)["status"] == "paused")
    paused = registry.bytes_served[weights]
    assert backend.post(f"{PULLS}/{id}/resume", None).status_code == 200
    _wait_for_end(backend, id)

    assert paused < SIZE
    _assert_honest(list(_events(backend, id)))
    assert registry.bytes_served[weights] - SIZE < LOST_AT_MOST


def test_cancelled_pull_leaves_the_installed_model_as_it_was(
    backend: BackendProcess, engine: EngineProcess, registry: Registry
) -> None:
    installed = smollm2_file().read_bytes()
    registry.add_model("library/tiny:1", {"model": smollm2_file(), "params": b'{"temperature": 0.1}'})
    _wait_for_end(backend, _start(backend, registry)["id"])
    before = engine.get("/api/tags").json()
    changed = bytearray(installed)
    changed[-1] ^= 1
    registry.add_model("library/tiny:1", {"model": bytes(changed)})
    id = _start(backend, registry)["id"]
    _wait_for(backend, id, 20)

    backend.post(f"{PULLS}/{id}/cancel", None)
    _wait_for_end(backend, id, "cancelled")

    assert engine.get("/api/tags").json() == before
    _assert_honest(list(_events(backend, id)))
    assert backend.post(f"{PULLS}/{id}/pause", None).json()["error_type"] == "pull_finished"
    assert backend.get(f"{PULLS}/{id}").json()["status"] == "cancelled"


def test_waiting_client_is_told_that_its_pull_was_cancelled(
    backend: BackendProcess, engine: EngineProcess, registry: Registry
) -> None:
    body = {"model": registry.name("library/tiny:1"), "insecure": True}
    answers: list[requests.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(backend.post("/api/providers/ollama/pull", body))
    )
    waiting.start()
    wait_until(lambda: backend.get(PULLS).json()["total"] == 1)
    id = backend.get(PULLS).json()["pulls"][0]["id"]

    backend.post(f"{PULLS}/{id}/cancel", None)
    waiting.join(20)

    assert answers[0].status_code == 409
    assert answers[0].json()["error_type"] == "pull_cancelled"


def test_registry_that_lies_fails_the_pull_and_installs_nothing(
    backend: BackendProcess, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    registry.faults.bytes_per_second = 0
    registry.faults.corrupt.add(weights)
    id = _start(backend, registry)["id"]

    pull = _wait_for_end(backend, id, "failed")
    events = list(_events(backend, id))

    assert "digest" in pull["error"]["error"]
    assert events[-1][1] == "error"
    assert events[-1][2]["error_type"] == "pull_failed"
    assert _installed(engine) == []


def test_pull_of_an_unknown_model_fails_at_once_with_the_reason(
    backend: BackendProcess, engine: EngineProcess, registry: Registry
) -> None:
    body = {"model": registry.name("library/nope:1"), "insecure": True}

    response = backend.post("/api/providers/ollama/pull", body)

    assert response.status_code == 500
    assert response.json()["error_type"] == "pull_failed"
    assert "does not exist" in response.json()["error"]


def test_more_pulls_than_allowed_wait_their_turn(
    tmp_path: Path, engine: EngineProcess, registry: Registry
) -> None:
    for number in range(3):
        registry.add_model(f"library/m{number}:1", {"model": os.urandom(6_000_000)})
    with BackendProcess(
        tmp_path / "data", engine.url, ("--enable", "ollama"), BACKEND_MAX_PULLS="1"
    ) as backend:
        ids = []
        for number in range(3):
            body = {"model": registry.name(f"library/m{number}:1"), "insecure": True, "background": True}
            ids.append(backend.post("/api/providers/ollama/pull", body).json()["id"])

        def statuses() -> list[str]:
            return [pull["status"] for pull in backend.get(PULLS).json()["pulls"]]

        seen: list[int] = []
        wait_until(
            lambda: seen.append(statuses().count("running")) or set(statuses()) <= {"done", "failed"}, 60
        )

    assert max(seen) == 1
    assert len(ids) == len(set(ids)) == 3


def test_pull_that_is_too_fast_rests_and_goes_on_from_there(
    backend: BackendProcess, engine: EngineProcess, registry: Registry, weights: str
) -> None:
    def limit(bytes_per_second: int | None) -> None:
        body = {"pulls": {"max_bytes_per_second": bytes_per_second}}
        assert requests.put(f"{backend.url}/api/settings", json=body, timeout=30).status_code == 200

    limit(2_000_000)
    id = _start(backend, registry)["id"]
    wait_until(lambda: _pull(backend, id)["attempts"] > 1, 60)
    limit(None)
    _wait_for_end(backend, id)

    _assert_honest(list(_events(backend, id)))
    assert registry.bytes_served[weights] - SIZE < LOST_AT_MOST


@contextmanager
def _paused_pull(backend: BackendProcess, registry: Registry) -> Iterator[str]:
    id = _start(backend, registry)["id"]
    backend.post(f"{PULLS}/{id}/pause", None)
    wait_until(lambda: _pull(backend, id)["status"] == "paused")
    yield id


def test_pull_that_is_over_can_be_forgotten_and_one_that_is_not_cannot(
    backend: BackendProcess, engine: EngineProcess, registry: Registry
) -> None:
    with _paused_pull(backend, registry) as id:
        refused = requests.delete(f"{backend.url}{PULLS}/{id}", timeout=30)
        backend.post(f"{PULLS}/{id}/cancel", None)
        forgotten = requests.delete(f"{backend.url}{PULLS}/{id}", timeout=30)
        gone = backend.get(f"{PULLS}/{id}")

    assert refused.json()["error_type"] == "pull_active"
    assert forgotten.status_code == 204
    assert gone.json()["error_type"] == "pull_not_found"


def test_waiting_clients_that_leave_free_their_threads(
    tmp_path: Path, engine: EngineProcess, registry: Registry
) -> None:
    registry.faults.bytes_per_second = 1_000_000
    body = {"model": registry.name("library/tiny:1"), "insecure": True}
    with BackendProcess(
        tmp_path / "data", engine.url, ("--enable", "ollama"), BACKEND_THREADS="4"
    ) as backend:
        for _ in range(6):
            with pytest.raises(requests.Timeout):
                backend.post("/api/providers/ollama/pull", body, timeout=0.3)

        assert backend.get("/api/health", timeout=10).status_code == 200
        assert backend.get(PULLS).json()["pulls"][0]["status"] == "running"


def test_server_that_stops_tells_who_waits_and_the_pull_goes_on(
    tmp_path: Path, engine: EngineProcess, registry: Registry
) -> None:
    body = {"model": registry.name("library/tiny:1"), "insecure": True}
    answers: list[requests.Response] = []
    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as first:
        waiting = threading.Thread(
            target=lambda: answers.append(first.post("/api/providers/ollama/pull", body))
        )
        waiting.start()
        wait_until(lambda: first.get(PULLS).json()["total"] == 1)
        id = first.get(PULLS).json()["pulls"][0]["id"]
        _wait_for(first, id, 10)
    waiting.join(20)

    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as second:
        _wait_for_end(second, id)

    assert answers[0].status_code == 503
    assert answers[0].json()["error_type"] == "server_stopping"


def test_watcher_is_told_that_the_server_stops_and_misses_nothing(
    tmp_path: Path, engine: EngineProcess, registry: Registry
) -> None:
    seen: list[tuple[int, str, dict[str, Any]]] = []
    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as first:
        id = _start(first, registry)["id"]
        watching = threading.Thread(target=lambda: seen.extend(_events(first, id)))
        watching.start()
        _wait_for(first, id, 20)
    watching.join(20)
    *told, (number, name, data) = seen

    with BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as second:
        rest = list(_events(second, id, after=number))

    assert (number, name, data["error_type"]) == (told[-1][0], "error", "server_stopping")
    assert data["request_id"]
    _assert_honest([*told, *rest])
    assert rest[-1][1] == "done"

"""A worker's run of a pull, and the races around it."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import Any

import pytest
import responses
from flask.testing import FlaskClient

from app.config import Timeouts
from app.errors import InvalidUpstreamResponse, PullFailed
from app.model_name import ModelName
from app.services.ollama.registry import RegistryService
from app.services.ollama.service import OllamaService, pull_failed
from app.services.providers.store import Provider
from app.services.pulls import run as pull_run
from app.services.pulls.progress import Progress
from app.services.pulls.run import PullRun
from app.services.pulls.store import PullStore
from app.storage.database import Database
from app.upstream import reading
from app.upstream.session import UpstreamSession
from tests.raw_server import Connection, raw_server

BASE = "http://ollama.test"
MANIFEST = "http://127.0.0.1:1/v2/library/a/manifests/latest"
NAME = "127.0.0.1:1/library/a:latest"
PULLS = "/api/providers/ollama/pulls"
TIMEOUTS = Timeouts(connect=1, first_byte=2, idle=2, list=1, pull=2)
LAYER = {"status": "pulling a", "digest": "sha256:" + "a" * 64, "total": 100, "completed": 50}


@pytest.fixture
def store(database: Database) -> PullStore:
    return PullStore(database)


def _claimed(store: PullStore) -> str:
    pull = store.join(NAME, NAME, insecure=True)
    assert store.claim(pull.id, "me", 2) is not None
    return pull.id


def _progress() -> Progress:
    return Progress({}, None, None, [])


def _run(store: PullStore, id: str, *, may_run: bool = True) -> None:
    session = UpstreamSession()
    provider = Provider("ollama", name="Ollama", kind="ollama", base_url=f"{BASE}/v1")
    PullRun(
        store,
        OllamaService(session, provider, TIMEOUTS),
        RegistryService(session, lambda: TIMEOUTS),
        store.get(id),
        "me",
        threading.Event(),
        lambda _: may_run,
    ).run()
    session.close()


@pytest.mark.parametrize(
    ("then", "status", "needs_a_worker"),
    [("running", "queued", True), ("cancelled", "cancelled", False), ("paused", "paused", False)],
)
def test_pull_that_stops_goes_where_it_is_wanted_last(
    store: PullStore, then: str, status: str, needs_a_worker: bool
) -> None:
    id = _claimed(store)
    store.want(id, "paused")
    assert store.report(id, "me", _progress(), 0, 1) == "paused"
    store.want(id, then)

    store.settle(id, "me", "paused", _progress())

    assert store.get(id).status == status
    assert (id in store.waiting()) is needs_a_worker


def test_paused_pull_goes_on_when_it_is_joined(store: PullStore) -> None:
    id = _claimed(store)
    store.want(id, "paused")
    store.settle(id, "me", "paused", _progress())

    joined = store.join(NAME, NAME, insecure=True)

    assert joined.id == id
    assert store.get(id).status == "queued"


def test_worker_that_lost_its_pull_changes_nothing(store: PullStore) -> None:
    id = _claimed(store)

    assert store.report(id, "another", _progress(), 0, 1) == "lost"
    store.settle(id, "another", "failed", _progress(), {})

    assert store.get(id).status == "running"


def test_pull_that_fails_without_a_new_byte_is_given_up(
    store: PullStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_run, "GIVE_UP_AFTER", 0.2)
    lines = [{"status": "pulling manifest"}, LAYER, {"error": "max retries exceeded: EOF"}]
    id = _claimed(store)
    with responses.RequestsMock() as wire:
        wire.get(MANIFEST, status=500)
        wire.post(f"{BASE}/api/pull", "".join(json.dumps(line) + "\n" for line in lines))

        _run(store, id)

    pull = store.get(id)
    assert pull.status == "failed"
    assert pull.error is not None
    assert "max retries exceeded" in pull.error["error"]
    assert pull.attempts > 1


def test_pull_goes_back_to_the_queue_when_the_process_ends_during_a_read(
    store: PullStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    stopping.set()
    monkeypatch.setattr(reading, "stopping", stopping)
    id = _claimed(store)
    with responses.RequestsMock() as wire:
        wire.get(MANIFEST, status=500)
        wire.post(f"{BASE}/api/pull", json.dumps(LAYER) + "\n")

        _run(store, id)

    assert store.get(id).status == "queued"


def test_pull_whose_sizes_no_database_holds_ends(store: PullStore) -> None:
    huge = {**LAYER, "total": 10**30, "completed": 10**29}
    lines = [huge, {"status": "success"}]
    id = _claimed(store)
    with responses.RequestsMock() as wire:
        wire.get(MANIFEST, json={"config": {}, "layers": [{"size": 10**30}]})
        wire.post(f"{BASE}/api/pull", "".join(json.dumps(line) + "\n" for line in lines))

        _run(store, id)

    assert store.get(id).status == "done"


@pytest.mark.parametrize(
    "manifest",
    [
        b"[" * 200_000,
        b"{}",
        b'{"config": {"mediaType": "x", "digest": "sha256:%s", "size": 1e30}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "x", "digest": "sha256:%s", "size": "5"}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "x", "digest": "sha256:../../x", "size": 5}, "layers": []}',
    ],
)
def test_manifest_that_is_nonsense_is_an_invalid_response(manifest: bytes) -> None:
    with responses.RequestsMock() as wire, UpstreamSession() as session:
        wire.get(MANIFEST, manifest)

        with pytest.raises(InvalidUpstreamResponse):
            RegistryService(session, lambda: TIMEOUTS).manifest(ModelName.parse(NAME), insecure=True)


@pytest.mark.parametrize(
    ("message", "final"),
    [
        ("pull model manifest: file does not exist", True),
        ("pull model manifest: 403: denied", True),
        ("pull model manifest: 500: oops", False),
        ('max retries exceeded: Get "https://x/?X-Amz-Date=20260403T1010": dial tcp: i/o timeout', False),
        ("write blob: no space left on device", True),
        ("digest mismatch, file must be downloaded again", True),
    ],
)
def test_only_what_cannot_mend_itself_is_final(store: PullStore, message: str, final: bool) -> None:
    id = _claimed(store)
    store.report(id, "me", Progress({"sha256:a": 5}, 10, None, []), 0, 1)
    run: Any = PullRun(store, None, None, store.get(id), "me", threading.Event())  # type: ignore[arg-type]

    error = pull_failed("403/401:401", message)

    assert isinstance(error, PullFailed)
    assert run._is_final(error) is final


def test_pull_that_runs_goes_back_to_the_queue_when_its_window_closes(store: PullStore) -> None:
    id = _claimed(store)
    with responses.RequestsMock() as wire:
        wire.get(MANIFEST, status=500)
        wire.post(f"{BASE}/api/pull", json.dumps(LAYER) + "\n")

        _run(store, id, may_run=False)

    pull = store.get(id)
    assert pull.status == "queued"
    assert pull.completed == 50


def test_pull_out_of_the_window_waits_unless_it_is_wanted_now(client: FlaskClient, point: Any) -> None:
    hour = datetime.now().astimezone().hour
    window = {"from": f"{(hour + 2) % 24:02}:00", "to": f"{(hour + 3) % 24:02}:00"}
    client.put("/api/settings", json={"pulls": {"window": window}})

    def succeed(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        connection.send_chunk(b'{"status":"success"}\n')
        connection.end()

    with raw_server(succeed) as server:
        point(f"{server.url}/v1")

        waits = client.post("/api/providers/ollama/pull", json={"model": NAME})
        queued = client.get("/api/providers/ollama/pulls").json
        pulls_before = [r for r in server.requests if b"/api/pull" in r]
        at_once = client.post("/api/providers/ollama/pull", json={"model": NAME, "now": True})

    assert waits.status_code == 504
    assert waits.json["error_type"] == "pull_waits"  # type: ignore[index]
    assert queued["pulls"][0]["status"] == "queued"  # type: ignore[index]
    assert pulls_before == []
    assert at_once.status_code == 200


def test_pull_that_was_wanted_now_and_failed_is_resumed_now(client: FlaskClient, point: Any) -> None:
    hour = datetime.now().astimezone().hour
    window = {"from": f"{(hour + 2) % 24:02}:00", "to": f"{(hour + 3) % 24:02}:00"}
    client.put("/api/settings", json={"pulls": {"window": window}})
    lines = [b'{"error":"pull model manifest: file does not exist"}', b'{"status":"success"}']

    def fail_once(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        if b"/api/pull" in connection.request:
            connection.send_chunk(lines.pop(0) + b"\n")
        else:
            connection.send_chunk(b'{"models": []}')
        connection.end()

    with raw_server(fail_once) as server:
        point(f"{server.url}/v1")
        body = {"model": NAME, "now": True, "background": True}
        failed: Any = client.post("/api/providers/ollama/pull", json=body).json
        assert "event: error" in client.get(f"{PULLS}/{failed['id']}/events").text

        resumed: Any = client.post(f"{PULLS}/{failed['id']}/resume").json
        store = client.application.extensions["services"].pull_store

        assert resumed["id"] != failed["id"]
        assert store.get(resumed["id"]).anytime is True
        assert "event: done" in client.get(f"{PULLS}/{resumed['id']}/events").text


def test_pull_that_stalls_is_asked_for_again(
    client: FlaskClient, point: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_run, "STALL_LIMIT", 0.2)
    asked = []

    def stall_once(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        asked.append(connection)
        connection.send_chunk(json.dumps({**LAYER, "completed": 50 * len(asked)}).encode() + b"\n")
        if len(asked) == 1:
            connection.wait_for_close()
        connection.send_chunk(b'{"status":"success"}\n')
        connection.end()

    with raw_server(stall_once) as server:
        point(f"{server.url}/v1")

        response = client.post("/api/providers/ollama/pull", json={"model": NAME})

    assert response.status_code == 200
    assert len(asked) == 2

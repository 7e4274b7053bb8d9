"""A worker's run of a pull, and the races around it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import responses

from app.db import Database
from app.errors import InvalidUpstreamResponse, PullFailed
from app.model_name import ModelName
from app.services import pull_run
from app.services.ollama import OllamaService, pull_failed
from app.services.progress import Progress
from app.services.providers import Provider
from app.services.pull_run import PullRun
from app.services.pull_store import PullStore
from app.services.registry import RegistryService
from app.settings import Timeouts
from tests.postgres import database_url

BASE = "http://ollama.test"
MANIFEST = "http://127.0.0.1:1/v2/library/a/manifests/latest"
NAME = "127.0.0.1:1/library/a:latest"
TIMEOUTS = Timeouts(connect=1, first_byte=2, idle=2, list=1, pull=2)
LAYER = {"status": "pulling a", "digest": "sha256:" + "a" * 64, "total": 100, "completed": 50}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PullStore]:
    database = Database(database_url(tmp_path), tmp_path)
    database.migrate()
    yield PullStore(database)
    database.close()


def _claimed(store: PullStore) -> str:
    pull = store.join(NAME, NAME, insecure=True)
    assert store.claim(pull.id, "me", 2) is not None
    return pull.id


def _progress() -> Progress:
    return Progress({}, None, None, [])


def _run(store: PullStore, id: str) -> None:
    session = requests.Session()
    provider = Provider("ollama", name="Ollama", kind="ollama", base_url=f"{BASE}/v1")
    PullRun(
        store,
        OllamaService(session, provider, TIMEOUTS),
        RegistryService(session, TIMEOUTS),
        store.get(id),
        "me",
        threading.Event(),
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
    with responses.RequestsMock() as wire, requests.Session() as session:
        wire.get(MANIFEST, manifest)

        with pytest.raises(InvalidUpstreamResponse):
            RegistryService(session, TIMEOUTS).manifest(ModelName.parse(NAME), insecure=True)


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

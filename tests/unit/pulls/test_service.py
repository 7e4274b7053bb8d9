"""Starting, pausing and resuming pulls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.config import Timeouts
from app.errors import (
    DiskFull,
    PullActive,
    PullFinished,
    PullNotFound,
    RegistryNotAllowed,
    ServerStopping,
    ServiceError,
    StorageFailed,
)
from app.model_name import ModelName
from app.services.ollama.allowed_registries import check_registry
from app.services.ollama.names import check_name
from app.services.pulls import feed, service
from app.services.pulls.feed import PullFeeds
from app.services.pulls.service import PullService
from app.services.pulls.store import PullStore
from app.services.settings import SettingsStore
from app.storage.database import Database
from app.storage.tables import KeptVersion


class Plans:
    """Allows Ollama's registry; the disk is full."""

    def allowed_name(self, model: str, *, insecure: bool) -> ModelName:
        name = check_name(model)
        check_registry(name.host, insecure=insecure, allowed=("registry.ollama.ai",))
        return name

    def check_disk(self, name: ModelName, *, insecure: bool) -> None:
        raise DiskFull(f"{name} does not fit.")


class Versions:
    """Notes what happens, in order."""

    def __init__(self, *installed: str) -> None:
        self.installed = installed
        self.done: list[str] = []

    def keep_installed(self, model: str) -> KeptVersion | None:
        self.done.append(f"keep {model}")
        return KeptVersion(name=f"{model}-prev") if model in self.installed else None

    def begun(self, row: KeptVersion, pull_id: str) -> None:
        self.done.append(f"{row.name} until {pull_id}")


@pytest.fixture
def store(database: Database) -> PullStore:
    return PullStore(database)


@pytest.fixture
def versions() -> Versions:
    return Versions("a:1")


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def pulls(
    store: PullStore,
    versions: Versions,
    tmp_path: Path,
    stopping: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[PullService]:
    monkeypatch.setattr(feed, "POLL", 0.01)
    monkeypatch.setattr(service, "TICK", 0.01)
    settings = SettingsStore(tmp_path / "settings.json", Timeouts())
    feeds = PullFeeds(store)
    enqueue = versions.done.append  # so that the order can be seen
    yield PullService(store, Plans(), versions, settings, feeds, enqueue, stopping)
    feeds.close()


def test_start_checks_the_disk_unless_it_is_forced(pulls: PullService, store: PullStore) -> None:
    with pytest.raises(DiskFull):
        pulls.start("a:1", insecure=False)
    before = store.all()

    started = pulls.start("a:1", insecure=False, force=True)

    assert before == []
    assert store.get(started["id"]).status == "queued"


def test_registry_is_checked_before_the_disk(pulls: PullService) -> None:
    with pytest.raises(RegistryNotAllowed):
        pulls.start("example.com/a/b:1", insecure=False)


def test_resume_keeps_the_installed_version_before_a_new_pull_begins(
    pulls: PullService, versions: Versions
) -> None:
    first = pulls.start("a:1", insecure=False, now=True, force=True)["id"]
    pulls.cancel(first)
    versions.done.clear()

    again = pulls.resume(first)["id"]

    assert again != first
    assert versions.done == ["keep a:1", again, f"a:1-prev until {again}"]


def test_resume_keeps_nothing_where_the_model_is_not_installed(
    pulls: PullService, store: PullStore, versions: Versions
) -> None:
    first = pulls.start("b:1", insecure=False, now=True, force=True)["id"]
    pulls.cancel(first)
    versions.done.clear()

    again = pulls.resume(first)["id"]

    assert versions.done == ["keep b:1", again]
    assert store.get(again).anytime is True


def test_paused_pull_goes_on_under_its_id_and_keeps_nothing(pulls: PullService, versions: Versions) -> None:
    id = pulls.start("a:1", insecure=False, force=True)["id"]
    assert pulls.pause(id)["status"] == "paused"
    versions.done.clear()

    resumed = pulls.resume(id)

    assert (resumed["id"], resumed["status"]) == (id, "queued")
    assert versions.done == [id]


def test_pull_that_is_done_can_neither_be_paused_nor_resumed(pulls: PullService, store: PullStore) -> None:
    id = pulls.start("a:1", insecure=False, force=True)["id"]
    store.claim(id, "me", 1)
    store.settle(id, "me", "done", None)

    for act, verb in ((pulls.pause, "pause"), (pulls.resume, "resume"), (pulls.cancel, "cancel")):
        with pytest.raises(PullFinished, match=f"is done: there is nothing to {verb}"):
            act(id)


def _events(events: Any) -> list[tuple[str, int]]:
    return [(name, number) for batch in events for name, _, number in batch]


def _begun(pulls: PullService, store: PullStore) -> str:
    """Return the id of a pull that a worker has claimed; it has one event."""
    id = pulls.start("a:1", insecure=False, force=True)["id"]
    store.claim(id, "me", 1)
    return id


def test_wait_is_no_success_when_the_database_fails(
    pulls: PullService, store: PullStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = pulls.wait(_begun(pulls, store), 30)
    assert next(waiting) == []
    monkeypatch.setattr(feed, "PATIENCE", 0.0)
    with database.session() as session:
        session.execute(text("DROP TABLE pull_events"))

    with pytest.raises(StorageFailed):
        list(waiting)


def test_there_is_no_result_before_the_pull_is_done(pulls: PullService, store: PullStore) -> None:
    id = _begun(pulls, store)

    with pytest.raises(PullActive):
        pulls.result(id)


def test_pull_that_failed_without_a_reason_is_no_success(pulls: PullService, store: PullStore) -> None:
    id = _begun(pulls, store)
    store.settle(id, "me", "failed", None)

    (events,) = pulls.watch(id, 1, "r1")

    assert [(name, data["error_type"]) for name, data, _ in events] == [("error", "internal_error")]
    with pytest.raises(ServiceError):
        list(pulls.wait(id, 1))


def test_watchers_are_told_that_the_server_stops_and_can_go_on(
    pulls: PullService, store: PullStore, stopping: threading.Event
) -> None:
    id = _begun(pulls, store)
    watched = pulls.watch(id, 0, "r1")
    assert _events([next(watched)]) == [("progress", 1)]
    stopping.set()

    with pytest.raises(ServerStopping):
        list(watched)

    stopping.clear()
    store.settle(id, "me", "done", None)
    assert _events(pulls.watch(id, 1, "r1")) == [("done", 2)]


def test_watchers_are_told_that_the_pull_was_deleted(pulls: PullService, store: PullStore) -> None:
    id = _begun(pulls, store)
    watched = pulls.watch(id, 1, "r1")
    assert next(watched) == []
    store.delete(id)

    with pytest.raises(PullNotFound):
        list(watched)


def test_number_that_no_event_has_hides_no_event(pulls: PullService, store: PullStore) -> None:
    id = _begun(pulls, store)
    watched = pulls.watch(id, 99, "r1")
    first = next(watched)
    store.settle(id, "me", "done", None)

    assert _events([first, *watched]) == [("progress", 1), ("done", 2)]
    assert _events(pulls.watch(id, 2, "r1")) == []

"""Starting, pausing and resuming pulls."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.config import Timeouts
from app.errors import DiskFull, PullFinished, RegistryNotAllowed
from app.model_name import ModelName
from app.services.ollama.allowed_registries import check_registry
from app.services.ollama.names import check_name
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
def pulls(store: PullStore, versions: Versions, tmp_path: Path) -> PullService:
    settings = SettingsStore(tmp_path / "settings.json", Timeouts())
    enqueue = versions.done.append  # so that the order can be seen
    return PullService(store, Plans(), versions, settings, PullFeeds(store), enqueue, threading.Event())


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

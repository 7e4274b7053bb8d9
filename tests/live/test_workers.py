"""Pulls under gunicorn: whichever process dies, another one takes up its pull, without any request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from app.services.pulls import PullStore
from app.storage.database import Database
from app.storage.tables import Pull
from tests.engine.process import EngineProcess, wait_until
from tests.free_port import free_port
from tests.live.process import ROOT
from tests.postgres import database_url
from tests.registry import Registry

pytestmark = pytest.mark.live

LIMIT = 90  # seconds
SLOW = 1_000_000  # bytes a second: no pull is over before its process is killed


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.add_smollm2("library/tiny:1")
        registry.faults.bytes_per_second = SLOW
        yield registry


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "models") as engine:
        engine.request("DELETE", "/api/delete", json={"model": "smollm2:135m"})  # the same weights
        yield engine


@contextmanager
def _gunicorn(data_dir: Path, engine: EngineProcess, *flags: str) -> Iterator[tuple[int, str]]:
    """Start gunicorn; yield the process id of its master, and its URL."""
    data_dir.mkdir()
    (data_dir / "providers.json").write_text(json.dumps({"ollama": {"base_url": f"{engine.url}/v1"}}))
    address = f"127.0.0.1:{free_port()}"
    kept = {"BACKEND_DATA_DIR": str(data_dir), "BACKEND_DATABASE_URL": database_url(data_dir)}
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "4", "-b", address, *flags]
    with (
        (data_dir / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "app.wsgi:app"],
            cwd=ROOT,
            env={**os.environ, **kept, "BACKEND_ENABLE": "ollama"},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_until(lambda: _is_up(f"http://{address}"), LIMIT)
            yield process.pid, f"http://{address}"
        finally:
            process.terminate()


def _is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/health", timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):  # the listener is open before the workers are ready
        return False


def _workers(master: int) -> list[int]:
    """Return the process ids of gunicorn's workers."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text()
    return [int(pid) for pid in children.split()]


def _start(url: str, registry: Registry) -> str:
    body = {"model": registry.name("library/tiny:1"), "insecure": True, "background": True}
    response = requests.post(f"{url}/api/providers/ollama/pull", json=body, timeout=60)
    assert response.status_code == 202, response.text
    id: str = response.json()["id"]
    return id


@contextmanager
def _database(data_dir: Path) -> Iterator[PullStore]:
    database = Database(database_url(data_dir), data_dir)
    yield PullStore(database)
    database.close()


def _runs(pull: Pull, above: int = 0) -> bool:
    return pull.status == "running" and pull.completed > above


@pytest.mark.parametrize(
    "flags", [("-w", "1"), ("-w", "1", "--preload"), ("-w", "2")], ids=["one", "preloaded", "two"]
)
def test_pull_of_killed_workers_goes_on_without_a_request(
    tmp_path: Path, engine: EngineProcess, registry: Registry, flags: tuple[str, ...]
) -> None:
    data_dir = tmp_path / "data"
    with _gunicorn(data_dir, engine, *flags) as (master, url), _database(data_dir) as store:
        id = _start(url, registry)
        wait_until(lambda: _runs(store.get(id)), LIMIT)
        for worker in _workers(master):
            os.kill(worker, signal.SIGKILL)
        registry.faults.bytes_per_second = 0

        wait_until(lambda: store.get(id).status in {"done", "failed"}, LIMIT)

        pull = store.get(id)
    assert (pull.status, pull.error) == ("done", None)
    assert pull.attempts > 1


def test_pull_of_a_killed_worker_goes_on_in_the_other_one(
    tmp_path: Path, engine: EngineProcess, registry: Registry
) -> None:
    data_dir = tmp_path / "data"
    with _gunicorn(data_dir, engine, "-w", "2") as (master, url), _database(data_dir) as store:
        id = _start(url, registry)
        wait_until(lambda: _runs(store.get(id)), LIMIT)
        for worker in _workers(master):  # one of the two runs the pull
            completed = store.get(id).completed
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda least=completed: _runs(store.get(id), least), LIMIT)
            wait_until(lambda: len(_workers(master)) == 2, LIMIT)
        registry.faults.bytes_per_second = 0

        wait_until(lambda: store.get(id).status in {"done", "failed"}, LIMIT)

        pull = store.get(id)
        log = (data_dir / "log").read_text()
    assert (pull.status, pull.error) == ("done", None)
    assert pull.attempts > 1
    assert "Traceback" not in log, log

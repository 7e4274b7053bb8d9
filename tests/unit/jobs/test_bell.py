"""Messages over a real Redis: only ids, whatever else is there."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from app.errors import StorageFailed
from app.services.jobs import bell, queue
from app.services.jobs.bell import Bell
from app.services.jobs.queue import Jobs
from tests.engine.process import wait_until
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis

LIMIT = 20  # seconds
ID, OTHER_ID = "0" * 32, "1" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def make_jobs(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Jobs]]:
    """Makes the jobs of one more process; the argument is a queue that gets the ids that its workers run."""
    made: list[Jobs] = []

    def make(ran: SimpleQueue[str]) -> Jobs:
        jobs = Jobs(server.url, tmp_path, 1)
        jobs.assign(ran.put, list, lambda: None)
        made.append(jobs)
        return jobs

    yield make
    for jobs in made:
        jobs.stop()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_worker_of_another_process_hears_of_a_pull(
    make_jobs: Callable[..., Jobs],
) -> None:
    here: SimpleQueue[str] = SimpleQueue()
    there: SimpleQueue[str] = SimpleQueue()
    make_jobs(there).start()

    make_jobs(here).enqueue(ID)

    assert there.get(timeout=LIMIT) == ID
    assert here.empty()


def test_messages_that_are_no_ids_are_dropped_and_run_nothing(
    server: RedisServer, make_jobs: Callable[..., Jobs], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran: SimpleQueue[str] = SimpleQueue()
    bombs = [
        pickle.dumps(Bomb(tmp_path / "bomb")),
        b"\xff" * 50,
        b"[" * 90,
        b"x" * 1_000_000,
        b"{}",
        b"[]",
        b"1",
        b'{"pull": 1}',
        b'{"pull": "' + b"../" * 10 + b'"}',
        b'"' + ID.encode() + b'"',
    ]
    for bomb in bombs:
        server.client.lpush("ollama-backend:pulls", bomb)
        server.client.lpush("huey.redis.ollamabackend", bomb)
    jobs = make_jobs(ran)

    jobs.start()
    jobs.enqueue(ID)

    assert ran.get(timeout=LIMIT) == ID
    assert not (tmp_path / "bomb").exists()
    assert caplog.text.count("a message in Redis is not from this program, and is dropped") == len(bombs)
    assert jobs.failures == []


def test_pull_runs_here_when_redis_is_stopped_and_elsewhere_when_it_is_back(
    server: RedisServer, make_jobs: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_LISTEN_INTERVAL", 0.01)
    here: SimpleQueue[str] = SimpleQueue()
    there: SimpleQueue[str] = SimpleQueue()
    one, two = make_jobs(here), make_jobs(there)
    two.start()
    server.stop()
    wait_until(lambda: two.failures, LIMIT)
    said = two.failures

    one.enqueue(ID)
    ran = here.get(timeout=LIMIT)
    server.start()
    wait_until(lambda: not two.failures, LIMIT)
    one.enqueue(OTHER_ID)

    assert ran == ID
    assert said == [
        "Background work fails (messages over Redis): Redis does not answer, or refuses the request."
    ]
    wait_until(lambda: not (here.empty() and there.empty()), LIMIT)  # now the first one listens, too


def test_redis_that_is_silent_delays_a_pull_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        ringing = Bell(f"redis://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(StorageFailed, match="Redis does not answer"):
            ringing.ring(ID)

        ringing.close()


def test_messages_are_json_and_old_ones_are_dropped(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "_KEPT", 2)
    ringing = Bell(server.url)

    for id in (ID, OTHER_ID, ID):
        ringing.ring(id)

    assert server.client.lrange("ollama-backend:pulls", 0, -1) == [
        b'{"pull": "%s"}' % id.encode() for id in (ID, OTHER_ID)
    ]
    assert [ringing.wait(), ringing.wait()] == [OTHER_ID, ID]
    ringing.close()

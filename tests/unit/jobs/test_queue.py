"""The queue of this process's workers, and the work that recurs beside them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from app.errors import StorageFailed
from app.services.jobs import queue
from app.services.jobs.queue import Jobs
from tests.engine.process import wait_until

LIMIT = 10  # seconds


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs("", tmp_path, 2)
    yield jobs
    jobs.stop()


def test_workers_run_what_is_enqueued(jobs: Jobs) -> None:
    ran: SimpleQueue[str] = SimpleQueue()
    jobs.assign(ran.put, list, lambda: None)

    for id in ("a", "b"):
        jobs.enqueue(id)

    assert {ran.get(timeout=LIMIT), ran.get(timeout=LIMIT)} == {"a", "b"}


def test_workers_that_start_take_up_what_waits(jobs: Jobs) -> None:
    ran: SimpleQueue[str] = SimpleQueue()
    waiting = [["left"]]
    jobs.assign(ran.put, lambda: waiting.pop() if waiting else [], lambda: None)

    jobs.start()

    assert ran.get(timeout=LIMIT) == "left"


def test_recovery_goes_on_after_the_database_was_away(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_RECOVERY_INTERVAL", 0.01)
    ran: SimpleQueue[str] = SimpleQueue()
    faults = [OSError("the database is away"), OSError("it still is")]

    def waiting() -> list[str]:
        if faults:
            raise faults.pop()
        return ["left"]

    jobs.assign(ran.put, waiting, lambda: None)

    jobs.start()

    assert ran.get(timeout=LIMIT) == "left"


def test_chores_go_on_after_one_failed(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_CHORES_INTERVAL", 0.01)
    rounds = threading.Semaphore(0)

    def chores() -> None:
        rounds.release()
        raise OSError("the disk is full")

    jobs.assign(lambda _: None, list, chores)

    jobs.start()

    assert all(rounds.acquire(timeout=LIMIT) for _ in range(3))


def test_workers_leave_the_signals_to_the_program(jobs: Jobs) -> None:
    jobs.assign(lambda _: None, list, lambda: None)
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]

    jobs.start()

    assert [signal.getsignal(number) for number in signals] == before


def test_stopped_jobs_start_no_workers(jobs: Jobs) -> None:
    jobs.assign(pytest.fail, list, pytest.fail)
    jobs.stop()

    jobs.start()

    assert jobs._workers == []


def test_pulls_run_after_one_failed(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue, "_RECOVERY_INTERVAL", 0.01)
    waiting = ["a"]
    faults: list[Exception] = [StorageFailed("The disk is full.")] * 5
    said: list[list[str]] = []

    def run(_: str) -> None:
        said.append(jobs.failures)
        if faults:
            raise faults.pop()
        waiting.clear()

    jobs.assign(run, lambda: waiting, lambda: None)

    jobs.start()

    wait_until(lambda: not waiting and not jobs.failures, LIMIT)
    assert said[:2] == [[], ["Background work fails (pulls): The disk is full."]]
    assert caplog.text.count("The disk is full.") == 1


def test_failure_ends_when_no_pull_waits_any_more(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_RECOVERY_INTERVAL", 0.01)
    waiting = ["a"]

    def fail(_: str) -> None:
        raise StorageFailed("The providers cannot be read.")

    jobs.assign(fail, lambda: waiting, lambda: None)
    jobs.start()
    wait_until(lambda: jobs.failures, LIMIT)

    waiting.clear()  # the user cancelled it

    wait_until(lambda: not jobs.failures, LIMIT)


def test_worker_that_ended_is_started_again(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_RECOVERY_INTERVAL", 0.01)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    ran: SimpleQueue[str] = SimpleQueue()

    def run(id: str) -> None:
        if id == "last":
            raise SystemExit
        ran.put(id)

    jobs.assign(run, list, lambda: None)
    jobs.start()
    workers = list(jobs._workers)
    for _ in workers:
        jobs._due.put("last")
    for worker in workers:
        worker.join(LIMIT)

    wait_until(lambda: not jobs.failures, LIMIT)
    jobs._due.put("a")

    assert ran.get(timeout=LIMIT) == "a"


def test_queue_of_older_versions_is_deleted(tmp_path: Path) -> None:
    for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
        (tmp_path / name).touch()

    Jobs("", tmp_path, 1).stop()

    assert list(tmp_path.iterdir()) == []

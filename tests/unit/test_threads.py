"""Threads that are kept for the next work, and work that recurs."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from app import threads
from app.errors import StorageFailed
from app.threads import Recurring, Threads, WriteBehind


def _run(pool: Threads) -> threading.Thread:
    """Return the thread that ran a work, with that work over."""
    ran: SimpleQueue[threading.Thread] = SimpleQueue()
    pool.run(lambda: ran.put(threading.current_thread()))
    return ran.get(timeout=5)


def _wait_until_idle(pool: Threads) -> None:
    until = threading.Event()
    while not pool._idle:
        until.wait(0.001)


def test_run_uses_the_thread_that_is_idle() -> None:
    pool = Threads("test")
    first = _run(pool)
    _wait_until_idle(pool)

    assert _run(pool) is first


def test_run_begins_at_once_while_the_others_are_busy() -> None:
    pool, go_on = Threads("test"), threading.Event()
    pool.run(lambda: go_on.wait(5) and None)

    _run(pool)

    go_on.set()


def test_idle_thread_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_KEPT_FOR", 0.01)
    pool = Threads("test")

    _run(pool).join(5)

    assert pool._idle == []
    assert _run(pool)


class _Idle(threading.Event):
    """Tells when a thread begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self.is_waited_for.set()
        return super().wait(timeout)


def test_recurring_work_goes_on_after_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    done: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        done.put(None)
        raise ZeroDivisionError

    recurring = Recurring("test", 0.001, work)
    recurring.start()
    for _ in range(3):
        done.get(timeout=5)
    failure = recurring.failure
    recurring.close()

    assert caplog.text.count("Background work fails (test): ZeroDivisionError") == 1
    assert failure == "Background work fails (test): ZeroDivisionError; the log says more."
    assert recurring.failure == ""


def test_recurring_work_that_fails_no_more_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = [StorageFailed("The disk is full.")]
    rounds: SimpleQueue[None] = SimpleQueue()
    caplog.set_level("INFO")

    def work() -> None:
        rounds.put(None)
        if faults:
            raise faults.pop()

    recurring = Recurring("test", 0.001, work)
    recurring.start()
    for _ in range(3):
        rounds.get(timeout=5)

    assert recurring.failure == ""
    assert [record.getMessage() for record in caplog.records] == [
        "Background work fails (test): The disk is full.",
        "Background work goes on (test)",
    ]
    recurring.close()


def test_recurring_work_without_a_thread_is_a_failure_until_the_next_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recurring, done = Recurring("test", 0.001, lambda: done.set()), threading.Event()
    with monkeypatch.context() as few:
        few.setattr(threads, "start_thread", lambda *_: None)
        recurring.start()

    failure = recurring.failure
    with recurring.busy():
        assert done.wait(5)

    assert failure == "Background work does not run (test): restart the server."
    assert recurring.failure == ""
    recurring.close()


def _in_a_fork(work: Callable[[], bool]) -> bool:
    """Return what *work* returns in a process that is forked from this one."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks of a process with threads
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, b"1" if work() else b"0")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        return answer.read() == b"1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_recurring_work_begins_again_in_a_process_that_is_forked() -> None:
    done = threading.Event()
    recurring = Recurring("test", 0.001, lambda: done.set())
    recurring.start()
    assert done.wait(5)

    def again() -> bool:
        done.clear()
        with recurring.busy():
            return done.wait(5)

    with recurring._lock:  # the child gets a copy of the lock, and no thread that could open it
        is_done = _in_a_fork(again)

    assert is_done
    recurring.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_items_put_in_a_process_that_is_forked_are_written_there_and_only_once() -> None:
    begun, go_on = threading.Event(), threading.Event()
    written: SimpleQueue[list[str]] = SimpleQueue()

    def write(batch: list[str]) -> None:
        begun.set()
        go_on.wait(5)
        written.put(batch)

    behind = WriteBehind[str]("test", write, passing=(), failing="", losing="", limit=10)
    behind.put("parent's first")
    assert begun.wait(5)
    behind.put("parent's second")

    def put() -> bool:
        go_on.set()
        behind.put("child's")
        return written.get(timeout=5) == ["child's"]

    is_written = _in_a_fork(put)

    go_on.set()
    assert is_written
    assert [written.get(timeout=5), written.get(timeout=5)] == [["parent's first"], ["parent's second"]]
    behind.close()


def test_items_that_wait_because_writing_fails_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_PAUSE", 0.001)
    tries: SimpleQueue[None] = SimpleQueue()
    faults: list[Exception] = [OSError(), OSError()]
    failures: list[str] = []

    def write(_: list[str]) -> None:
        failures.append(behind.failure)
        tries.put(None)
        if faults:
            raise faults.pop()

    behind = WriteBehind[str]("test", write, passing=(OSError,), failing="no luck", losing="", limit=10)
    behind.put("item")
    for _ in range(3):
        tries.get(timeout=5)
    behind.close()

    assert failures == ["", *["Background work fails (test): no luck."] * 2]
    assert behind.failure == ""


def test_recurring_work_is_done_at_once_when_it_is_started() -> None:
    done = threading.Event()
    recurring = Recurring("test", 3600, done.set)

    recurring.start()

    assert done.wait(5)
    recurring.close()


def test_recurring_work_is_not_done_in_a_block_that_is_shorter_than_the_interval() -> None:
    works: SimpleQueue[None] = SimpleQueue()
    recurring = Recurring("test", 0.001, lambda: works.put(None))
    idle = recurring._is_busy = _Idle()
    with recurring.busy():
        works.get(timeout=5)
    assert idle.is_waited_for.wait(5)  # the thread waits for the next block
    while not works.empty():
        works.get()
    recurring._interval = 3600

    with recurring.busy():
        pass
    recurring.close()

    assert works.empty()


def test_recurring_work_of_several_blocks_ends_with_the_last_one() -> None:
    works: SimpleQueue[None] = SimpleQueue()
    recurring = Recurring("test", 0.001, lambda: works.put(None))
    idle = recurring._is_busy = _Idle()

    with recurring.busy():
        with recurring.busy():
            works.get(timeout=5)
        while not works.empty():
            works.get()
        works.get(timeout=5)

    assert idle.is_waited_for.wait(5)
    recurring.close()


def test_recurring_work_that_was_closed_begins_no_more() -> None:
    recurring = Recurring("test", 0.001, pytest.fail)
    recurring.close()

    with recurring.busy():
        pass

    assert recurring._thread is None

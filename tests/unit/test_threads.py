"""Threads that are kept for the next work, and work that recurs."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from app import threads
from app.threads import Recurring, Threads


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
    recurring.close()

    assert "test failed; the next try is in 0.001 seconds" in caplog.text
    assert "ZeroDivisionError" in caplog.text


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

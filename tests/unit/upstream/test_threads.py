"""Threads that are kept for the next work."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from app.upstream import threads
from app.upstream.threads import Threads


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

"""How waitress is set up."""

from __future__ import annotations

import threading

import pytest
from waitress.task import Task

from app.server.dispatcher import GrowingDispatcher
from tests.engine.process import wait_until


class WaitingTask(Task):
    """A task that runs until it is let go."""

    def __init__(self, go_on: threading.Event) -> None:
        self.go_on = go_on
        self.begun = threading.Event()

    def service(self) -> None:
        self.begun.set()
        self.go_on.wait(5)


def test_dispatcher_starts_a_thread_for_each_task_at_once_up_to_its_limit() -> None:
    dispatcher, go_on = GrowingDispatcher(3), threading.Event()
    assert not dispatcher.threads

    tasks = [WaitingTask(go_on) for _ in range(5)]
    for task in tasks:
        dispatcher.add_task(task)

    assert all(task.begun.wait(5) for task in tasks[:3])
    assert (len(dispatcher.threads), len(dispatcher.queue)) == (3, 2)
    go_on.set()
    assert all(task.begun.wait(5) for task in tasks[3:])
    dispatcher.shutdown()


def test_dispatcher_uses_an_idle_thread_again() -> None:
    dispatcher, go_on = GrowingDispatcher(3), threading.Event()
    go_on.set()

    for _ in range(5):
        task = WaitingTask(go_on)
        dispatcher.add_task(task)
        assert task.begun.wait(5)
        while dispatcher.active_count:
            threading.Event().wait(0.001)

    assert len(dispatcher.threads) == 1
    dispatcher.shutdown()


def test_dispatcher_ends_the_threads_that_are_not_needed_any_more() -> None:
    dispatcher, go_on = GrowingDispatcher(20), threading.Event()
    tasks = [WaitingTask(go_on) for _ in range(20)]
    for task in tasks:
        dispatcher.add_task(task)
    assert all(task.begun.wait(5) for task in tasks)

    dispatcher.shrink()
    assert len(dispatcher.threads) == 20  # all of them work

    go_on.set()
    wait_until(lambda: not dispatcher.active_count)
    dispatcher.shrink()  # 20 were needed since the last call
    dispatcher.shrink()
    wait_until(lambda: len(dispatcher.threads) == 1)

    more = [WaitingTask(go_on) for _ in range(5)]
    for task in more:
        dispatcher.add_task(task)
    assert all(task.begun.wait(5) for task in more)
    dispatcher.shutdown()


def test_requests_wait_when_the_system_starts_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher, go_on = GrowingDispatcher(3), threading.Event()
    first, second = WaitingTask(go_on), WaitingTask(go_on)
    dispatcher.add_task(first)
    assert first.begun.wait(5)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        dispatcher.add_task(second)

    assert (len(dispatcher.threads), dispatcher.active_count) == (1, 1)
    go_on.set()
    assert second.begun.wait(5)
    dispatcher.shutdown()

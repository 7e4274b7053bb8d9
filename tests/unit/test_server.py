"""How waitress is set up."""

from __future__ import annotations

import threading

from waitress.task import Task

from app.server import GrowingDispatcher


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

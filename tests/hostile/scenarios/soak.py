"""Everything at once for some minutes: memory, threads and open files afterwards are what they were before."""

from __future__ import annotations

import itertools
import threading
import time

from tests.hostile.client import ask, watching
from tests.hostile.processes import Backend, wait_until
from tests.hostile.run import Run

_MORE = {"MB": 60, "threads": 12, "files": 20}


def run(run: Run) -> None:
    provider = run.provider()
    provider.delay = 0.002
    backend = run.backend(provider)
    for _ in range(2):  # what is loaded once and kept
        _round(run, backend, "warm")
        _load(run, backend, run.pick(2, 8))
    quiet = _at_rest(backend)
    with watching(backend) as watch:
        count = _load(run, backend, run.pick(20, 180))
    after = {}

    def is_quiet() -> bool:
        nonlocal after
        after = backend.usage()
        return all(after[name] <= quiet[name] + more for name, more in _MORE.items())

    wait_until(is_quiet, 60, 0.5)
    for name, more in _MORE.items():
        run.result.check(
            after[name] <= quiet[name] + more, f"{name}: {quiet[name]} before, {after[name]} after"
        )
    run.result.check(not watch.unanswered, f"the health did not answer within 5 s, {watch.unanswered} times")
    figures = ", ".join(f"{name} {quiet[name]} to {after[name]}" for name in _MORE)
    run.result.note(f"{count} rounds; {figures}; slowest health {watch.worst:.1f} s")
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")


def _at_rest(backend: Backend) -> dict[str, int]:
    """Return what the backend uses when its threads have had the time to end."""
    before = backend.usage()
    wait_until(lambda: backend.usage()["threads"] < before["threads"], 3, 0.2)
    return backend.usage()


def _load(run: Run, backend: Backend, seconds: float) -> int:
    """Let eight clients do everything for some seconds; return how many rounds they did."""
    until, rounds = time.monotonic() + seconds, itertools.count()

    def work() -> None:
        while time.monotonic() < until:
            _round(run, backend, f"r{next(rounds)}")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next(rounds)


def _round(run: Run, backend: Backend, name: str) -> None:
    id = ask(backend, "/api/conversations", {"title": name}).body["id"]
    for body in (
        {"message": "one", "conversation_id": id, "stream": True},
        {"message": "two", "conversation_id": id},
        {"message": "three", "format": "json"},
        {"message": "four", "stream": True, "options": {"num_ctx": 1024}},
    ):
        answer = ask(backend, "/api/chat", body)
        run.result.check(answer.terminal == ["done"], f"chat: {answer.describe()}")
    messages = [{"role": "user", "content": "Hi"}]
    answer = ask(backend, "/v1/chat/completions", {"model": "tiny", "messages": messages, "stream": True})
    run.result.check(answer.terminal == ["done"], f"/v1: {answer.describe()}")
    _leave_early(backend)
    for path in (
        "/api/providers/ollama/models",
        "/api/conversations?q=one",
        "/api/usage",
        f"/api/conversations/{id}",
    ):
        answer = ask(backend, path, method="GET")
        run.result.check(answer.status == 200, f"{path}: {answer.describe()}")
    bad = ask(backend, "/api/chat", {"message": 1})
    run.result.check(bad.status == 400, f"a bad request: {bad.describe()}")
    pull = ask(backend, "/api/providers/ollama/pull", {"model": "tiny", "stream": True})
    run.result.check(len(pull.terminal) == 1, f"pull: {pull.describe()}")
    ask(backend, f"/api/conversations/{id}", method="DELETE")


def _leave_early(backend: Backend) -> None:
    """Hang up in the middle of a stream."""
    response = backend.call("POST", "/api/chat", {"message": "word " * 200, "stream": True}, stream=True)
    with response:
        next(response.iter_content(10), None)

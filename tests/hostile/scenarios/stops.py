"""SIGTERM at random moments: each client gets exactly one end, the process ends in time, and nothing is half kept."""

from __future__ import annotations

import functools
import signal
import subprocess
import threading
import time
from typing import Any

from tests.hostile.client import Answer, ask, together
from tests.hostile.processes import Backend, wait_until
from tests.hostile.provider import Provider, echo
from tests.hostile.run import Run

_MESSAGE = " ".join(["long"] * 400)
_V1 = {"model": "tiny", "messages": [{"role": "user", "content": _MESSAGE}]}
_TARGETS = [{"provider": "ollama", "model": "tiny"}] * 2


def run(run: Run) -> None:
    provider = run.provider()
    for number in range(run.pick(2, 12)):
        _stop_once(run, provider, number, gunicorn=2 if number % 3 == 1 else 0)


def _stop_once(run: Run, provider: Provider, number: int, *, gunicorn: int) -> None:
    what = f"stop {number}{' of gunicorn' if gunicorn else ''}"
    provider.delay = 0.05
    backend = run.backend(provider, gunicorn=gunicorn)
    _warm_up(backend)
    ids = [ask(backend, "/api/conversations", {"title": "Stop"}).body["id"] for _ in range(2)]
    requests = _requests(ids)
    answers: dict[str, Answer] = {}

    def send(name: str, path: str, body: Any) -> None:
        answers[name] = ask(backend, path, body, timeout=40)

    threads = [
        threading.Thread(target=functools.partial(send, *request), daemon=True) for request in requests
    ]
    for thread in threads:
        thread.start()
    time.sleep(run.rng.uniform(0, 2))  # the moment of the signal is what chance decides
    began = time.monotonic()
    backend.signal(signal.SIGTERM)
    code = _exit_code(backend, 12)
    run.result.check(code == 0, f"{what}: the exit code is {code} after {time.monotonic() - began:.0f} s")
    backend.kill()
    for thread in threads:
        thread.join()
    for name, answer in answers.items():
        told = answer.ended_once and answer.error_type != "internal_error"
        # A request that came after the signal may be refused by the system.
        refused = answer.broken == "ConnectionError" and answer.status == 0 and answer.seconds < 1
        run.result.check(told or refused, f"{what}: {name}: {answer.describe()}")
    run.result.check(not backend.traceback, f"{what}: a traceback: {backend.traceback}")
    _check_kept(run, backend, provider, what, ids, answers)


def _warm_up(backend: Backend) -> None:
    """Let each process load the modules that a chat needs."""
    together([functools.partial(ask, backend, "/api/chat", {"message": "Hi"}) for _ in range(12)])


def _requests(ids: list[str]) -> list[tuple[str, str, Any]]:
    chat = {"message": _MESSAGE}
    return [
        ("a streamed chat", "/api/chat", {**chat, "stream": True}),
        ("a chat", "/api/chat", chat),
        ("a chat with options", "/api/chat", {**chat, "stream": True, "options": {"num_ctx": 1024}}),
        (ids[0], "/api/chat", {**chat, "stream": True, "conversation_id": ids[0]}),
        (ids[1], "/api/chat", {**chat, "conversation_id": ids[1]}),
        ("a comparison", "/api/chat/compare", {**chat, "targets": _TARGETS, "stream": True}),
        ("a /v1 stream", "/v1/chat/completions", {**_V1, "stream": True}),
        ("a /v1 chat", "/v1/chat/completions", _V1),
        ("a streamed pull", "/api/providers/ollama/pull", {"model": "tiny", "stream": True}),
        ("a pull", "/api/providers/ollama/pull", {"model": "other"}),
    ]


def _exit_code(backend: Backend, seconds: float) -> int | None:
    assert backend.process is not None
    try:
        return backend.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _check_kept(
    run: Run, backend: Backend, provider: Provider, what: str, ids: list[str], answers: dict[str, Answer]
) -> None:
    """After the next start the answers are there as far as they came, and the pulls go on."""
    provider.delay = 0
    backend.start()
    if not run.result.check(backend.wait_for_health(), f"{what}: does not start again"):
        return
    for id in ids:
        rows = backend.get(f"/api/conversations/{id}")["messages"]
        kept = [(row["status"], row["content"]) for row in rows if row["role"] == "assistant"]
        came = "".join(data.get("content", "") for name, data in answers[id].events if name == "delta")
        whole = answers[id].terminal == ["done"]
        fits = all(
            status in ({"complete"} if whole else {"complete", "cut", "failed", "stopped"})
            and echo(_MESSAGE).startswith(text.strip()[: len(echo(_MESSAGE))])
            and (status == "failed" or text.strip().startswith(came.strip()))
            for status, text in kept
        )
        run.result.check(fits, f"{what}: kept {kept} of {came!r}"[:400])
        body = {"message": "still there?", "conversation_id": id}
        wait_until(lambda: ask(backend, "/api/chat", body).status != 409, 5, 0.3)  # noqa: B023
        free = ask(backend, "/api/chat", body)
        run.result.check(free.status == 200, f"{what}: the conversation is stuck: {free.describe()}")
    over = wait_until(
        lambda: all(pull["status"] == "done" for pull in backend.get("/api/providers/ollama/pulls")["pulls"]),
        20,
        0.2,
    )
    run.result.check(
        over, f"{what}: a pull does not go on: {backend.get('/api/providers/ollama/pulls')}"[:300]
    )
    backend.kill()

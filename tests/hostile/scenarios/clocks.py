"""A clock that jumps by hours and days, forth and back: nothing is stuck, and no work is begun twice or forgotten."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

from tests.hostile.client import ask, together
from tests.hostile.processes import Backend, faketime, wait_until
from tests.hostile.result import Skipped
from tests.hostile.run import Run

_JUMPS = ["+1d", "-1d", "+30d", "-2h", "+0", "+400d", "-40d", "+60", "-60"]


def run(run: Run) -> None:
    if not list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
        raise Skipped("faketime is not installed")
    env, move = run.enter(faketime(run.folder))
    provider = run.provider()
    provider.delay = 0.02
    backend = run.backend(provider, **env)
    for jump in run.rng.sample(_JUMPS, run.pick(2, len(_JUMPS))):
        provider.delay = 0.05
        _jump(run, backend, move, jump)
    for jump in run.pick(["+1d"], ["+1d", "-1d", "+40d"]):
        provider.delay = 0.05
        _die_in_the_future(run, backend, move, jump)
    # libfaketime itself lets a very short sleep fail with "Invalid argument".
    traceback = backend.traceback
    run.result.check(not traceback or "Errno 22" in traceback, f"a traceback: {traceback}")


def _jump(run: Run, backend: Backend, move: Callable[[str], None], jump: str) -> None:
    """The clock jumps in the middle of chats and a pull; all of them end, and the next ones work."""
    id = ask(backend, "/api/conversations", {"title": "Clock"}).body["id"]
    body = {"message": "word " * 20, "conversation_id": id, "stream": True}
    pull = ask(
        backend, "/api/providers/ollama/pull", {"model": f"at{jump}".replace("+", "p"), "background": True}
    ).body

    def jump_soon() -> None:
        wait_until(lambda: backend.get(f"/api/providers/ollama/pulls/{pull['id']}")["status"] != "queued", 10)
        time.sleep(run.rng.uniform(0, 0.5))  # the moment of the jump is what chance decides
        move(jump)

    chat, _ = together([functools.partial(ask, backend, "/api/chat", body), jump_soon])
    run.result.check(chat.terminal == ["done"], f"{jump}: the chat: {chat.describe()}")
    _check_goes_on(run, backend, jump, id, pull["id"])


def _die_in_the_future(run: Run, backend: Backend, move: Callable[[str], None], jump: str) -> None:
    """It dies while its clock is wrong, and starts when the clock is right: what it left is taken up."""
    move(jump)
    id = ask(backend, "/api/conversations", {"title": "Clock"}).body["id"]
    pull = ask(backend, "/api/providers/ollama/pull", {"model": f"dies{jump[1:]}", "background": True}).body
    body = {"message": "word " * 300, "conversation_id": id, "stream": True}
    response = backend.call("POST", "/api/chat", body, stream=True)
    next(response.iter_content(10), None)
    path = f"/api/providers/ollama/pulls/{pull['id']}"
    wait_until(lambda: backend.get(path)["status"] != "queued", 10)
    backend.kill()
    response.close()
    move("+0")
    backend.start()
    run.result.check(backend.wait_for_health(), f"{jump}, then killed: does not start again")
    _check_goes_on(run, backend, f"{jump}, then killed", id, pull["id"])


def _check_goes_on(run: Run, backend: Backend, what: str, id: str, pull: str) -> None:
    path = f"/api/providers/ollama/pulls/{pull}"
    over = wait_until(lambda: backend.get(path)["status"] == "done", 30, 0.3)
    run.result.check(over, f"{what}: the pull is {backend.get(path)['status']}")
    message = {"message": "still there?", "conversation_id": id}
    free = wait_until(lambda: ask(backend, "/api/chat", message).status == 200, 45, 0.5)
    run.result.check(free, f"{what}: the conversation: {ask(backend, '/api/chat', message).describe()}")
    for path in ("/api/usage", "/api/conversations", "/api/providers/ollama/pulls", "/api/health"):
        answer = ask(backend, path, method="GET")
        run.result.check(answer.status == 200, f"{what}: {path}: {answer.describe()}")

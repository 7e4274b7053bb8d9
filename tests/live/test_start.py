"""Requests that come before the own Ollama or engine answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import BackendProcess, stream_events
from tests.registry import Registry

pytestmark = pytest.mark.live

FLAGS = ("--ollama", "auto", "--enable", "ollama")
CHAT = {"message": "Say hello.", "max_tokens": 3}
OPENAI = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 3}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.add_smollm2("library/tiny:1")
        yield registry


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, Any]:
    """A machine with a program `ollama` that begins to start when the file `go` exists."""
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    engine = f'{sys.executable} -m app.engine --port "${{OLLAMA_HOST##*:}}"'
    program.write_text(f"#!/bin/sh\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.1; done\nexec {engine}\n")
    program.chmod(0o755)
    return {
        "ollama_url": f"http://127.0.0.1:{free_port()}",
        "OLLAMA_MODELS": str(tmp_path / "models"),
        "PATH": f"{program.parent}:/usr/bin:/bin",
    }


def _is_served(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/health", timeout=10).ok
    except requests.ConnectionError:
        return False


def test_requests_in_the_first_second_wait_until_the_own_ollama_answers(
    tmp_path: Path, slow: dict[str, Any], registry: Registry
) -> None:
    port = free_port()
    backend = BackendProcess(tmp_path / "data", flags=(*FLAGS, "--port", str(port)), **slow)
    backend.url = url = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor() as pool:
        entered = pool.submit(backend.__enter__)  # waits for the greeting, which names the Ollama
        try:
            wait_until(lambda: _is_served(url), 60)
            pull = {"model": registry.name("library/tiny:1"), "insecure": True}
            asked = {
                "chat": pool.submit(backend.post, "/api/chat", CHAT),
                "/v1": pool.submit(backend.post, "/v1/chat/completions", OPENAI),
                "models": pool.submit(backend.get, "/api/providers/ollama/models"),
                "pull": pool.submit(backend.post, "/api/providers/ollama/pull", pull),
            }
            with backend.post("/api/chat", {**CHAT, "stream": True}, stream=True) as stream:
                events = stream_events(stream)
                begun = [next(events)[0], next(events)[0]]
                (tmp_path / "go").touch()
                last = [name for name, _ in events][-1]
            answers = {name: answer.result(60) for name, answer in asked.items()}
        finally:
            (tmp_path / "go").touch()
            entered.exception(60)
            backend.__exit__()

    assert begun == ["start", "loading"]
    assert last == "done"
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert answers["pull"].json()["success"]


def test_requests_after_the_death_of_the_own_ollama_wait_until_it_runs_again(
    tmp_path: Path, slow: dict[str, Any], registry: Registry
) -> None:
    (tmp_path / "go").touch()
    with (
        BackendProcess(tmp_path / "data", flags=FLAGS, **slow) as backend,
        ThreadPoolExecutor() as pool,
    ):
        (tmp_path / "go").unlink()
        assert backend.process is not None
        children = subprocess.run(
            ["pgrep", "-P", str(backend.process.pid)], capture_output=True, text=True, check=True
        )
        for child in children.stdout.split():
            os.kill(int(child), signal.SIGKILL)
        wait_until(lambda: "starting it again" in backend.log, 60)
        chat = pool.submit(backend.post, "/api/chat", CHAT)
        body = {"model": registry.name("library/tiny:1"), "insecure": True}
        pull = pool.submit(backend.post, "/api/providers/ollama/pull", body)
        wait_until(lambda: backend.get("/api/providers/ollama/pulls").json()["total"] == 1, 60)
        (tmp_path / "go").touch()

        assert chat.result(60).status_code == 200
        assert pull.result(60).json()["success"]


def test_requests_do_not_wait_for_a_server_that_dies_before_it_answers(
    tmp_path: Path, slow: dict[str, Any]
) -> None:
    program = tmp_path / "bin" / "ollama"
    program.write_text("#!/bin/sh\nexit 1\n")
    with BackendProcess(tmp_path / "data", flags=FLAGS, **slow) as backend:
        answer = backend.post("/api/chat", CHAT)

    assert "Could not start" in backend.greeting
    assert answer.json()["error_type"] == "upstream_unavailable"

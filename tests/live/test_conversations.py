"""Conversations with the real model: many turns, many at once, stopped, and on the command line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.engine.process import EngineProcess, wait_until
from tests.live.process import ROOT, BackendProcess, stream_events

pytestmark = pytest.mark.live

STORY = "Write a very long story about the sea, at least 2000 words."
SHORT = "Say hello in five words."


def _conversation(backend: BackendProcess, **values: Any) -> str:
    id: str = backend.post("/api/conversations", values).json()["id"]
    return id


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_conversation_of_100_turns_outgrows_the_window_without_an_error(backend: BackendProcess) -> None:
    id = _conversation(backend, system_prompt="You are a parrot. Answer with one word.")
    options = {"num_ctx": 256, "num_predict": 2}
    answers = []

    for turn in range(100):
        asked = {
            "message": f"{turn}: the ship sailed on",
            "conversation_id": id,
            "options": options,
            "temperature": 0,
        }
        answers.append(backend.post("/api/chat", asked))

    assert {answer.status_code for answer in answers} == {200}
    contexts = [answer.json()["context"] for answer in answers]
    assert contexts[0]["truncated"] is False
    assert contexts[-1]["truncated"] is True
    assert contexts[-1]["dropped_messages"] > 0
    assert all(context["used"] <= context["window"] for context in contexts)
    kept = backend.get(f"/api/conversations/{id}?limit=200").json()
    assert [message["status"] for message in kept["messages"]] == ["complete"] * 200


def test_ten_conversations_at_once_are_all_kept(backend: BackendProcess) -> None:
    ids = [_conversation(backend) for _ in range(10)]

    def talk(id: str) -> list[int]:
        asked = {"message": SHORT, "conversation_id": id, "temperature": 0, "options": {"num_predict": 5}}
        return [backend.post("/api/chat", asked).status_code for _ in range(2)]

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(talk, ids))

    assert found == [[200, 200]] * 10
    for id in ids:
        messages = backend.get(f"/api/conversations/{id}").json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2


def test_answer_is_stopped_from_another_process_and_kept_as_such(
    backend: BackendProcess, engine: EngineProcess
) -> None:
    id = _conversation(backend)
    asked = {"message": STORY, "conversation_id": id, "stream": True, "temperature": 0, "seed": 7}
    with (
        BackendProcess(backend.data_dir, engine.url, ("--enable", "ollama")) as other,
        backend.post("/api/chat", asked, stream=True) as response,
    ):
        events = stream_events(response)
        start = next(events)[1]
        next(events)
        stopped = requests.delete(f"{other.url}/api/chat/{start['request_id']}", timeout=10)
        rest = list(events)

    assert stopped.status_code == 204
    assert (rest[-1][0], rest[-1][1]["error_type"]) == ("error", "chat_stopped")
    last = backend.get(f"/api/conversations/{id}").json()["messages"][-1]
    assert last["status"] == "stopped"
    assert last["content"] == rest[-1][1]["details"]["response"]


def test_client_that_leaves_stops_the_answer_and_it_is_kept_as_stopped(
    backend: BackendProcess, engine: EngineProcess
) -> None:
    id = _conversation(backend)
    before = engine.log.count("stop")
    asked = {"message": STORY, "conversation_id": id, "stream": True, "temperature": 0, "seed": 7}
    with backend.post("/api/chat", asked, stream=True) as response:
        events = stream_events(response)
        next(events)
        next(events)

    wait_until(lambda: engine.log.count("stop") > before)
    wait_until(lambda: _last(backend, id)["status"] != "pending")
    assert _last(backend, id)["status"] == "stopped"
    assert _last(backend, id)["content"]


def _last(backend: BackendProcess, id: str) -> dict[str, Any]:
    last: dict[str, Any] = backend.get(f"/api/conversations/{id}").json()["messages"][-1]
    return last


# -- the command line


def _flask(backend: BackendProcess, *arguments: str) -> tuple[list[str], dict[str, str]]:
    env = {**os.environ, "BACKEND_DATA_DIR": str(backend.data_dir)}
    return [sys.executable, "-m", "flask", "--app", "app", "chat", *arguments], env


def test_flask_chat_answers_what_comes_in_a_pipe(backend: BackendProcess) -> None:
    command, env = _flask(backend, "Answer", "this:")

    done = subprocess.run(
        command, cwd=ROOT, env=env, input=SHORT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_flask_chat_says_what_is_wrong(backend: BackendProcess) -> None:
    command, env = _flask(backend, "-m", "nope:1b", "Hi")

    done = subprocess.run(
        command, cwd=ROOT, env=env, input="", capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert "nope:1b" in done.stderr
    assert "Traceback" not in done.stderr


class Terminal:
    """``flask chat`` on a terminal."""

    def __init__(self, backend: BackendProcess, *arguments: str) -> None:
        command, env = _flask(backend, *arguments)
        self._master, slave = pty.openpty()
        self._read = b""
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        try:
            while part := os.read(self._master, 65536):
                self._read += part
        except OSError:  # the program ended
            return

    @property
    def screen(self) -> str:
        return self._read.decode("utf-8", "replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(backend: BackendProcess) -> Iterator[Terminal]:
    terminal = Terminal(backend)
    yield terminal
    terminal.close()


def test_flask_chat_ctrl_c_stops_the_answer_and_not_the_program(
    terminal: Terminal, backend: BackendProcess
) -> None:
    wait_until(lambda: "> " in terminal.screen, 30)
    terminal.type(f"{STORY}\n")
    wait_until(lambda: len(terminal.screen.partition(STORY)[2]) > 20, 60)
    terminal.process.send_signal(signal.SIGINT)
    wait_until(lambda: "(stopped)" in terminal.screen)

    terminal.type("Say hello in five words.\n")
    wait_until(lambda: "tokens/s" in terminal.screen, 60)
    terminal.type("\x04")
    assert terminal.process.wait(20) == 0

    wait_until(lambda: "Go on with it: flask chat -c " in terminal.screen)
    id = terminal.screen.split("flask chat -c ")[-1].split()[0]
    messages = backend.get(f"/api/conversations/{id}").json()["messages"]
    assert [message["status"] for message in messages] == ["complete", "stopped", "complete", "complete"]

"""The main job, end to end: real processes, a real model, the README's own commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.engine.process import EngineProcess, wait_until
from tests.free_port import free_port
from tests.live.process import ROOT, BackendProcess, stream_events
from tests.registry import Registry

pytestmark = pytest.mark.live

MODEL = "smollm2:135m"
STORY = "Write a very long story about the sea, at least 2000 words."
SHORT = {"message": "Say hello in five words.", "temperature": 0}  # 12 tokens
LONG_STORY = {"message": STORY, "stream": True, "temperature": 0, "seed": 7}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def _readme_commands() -> list[str]:
    """Return the curl commands of the README's usage section."""
    usage = (ROOT / "README.md").read_text().split("## Use\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(curl.*?)```", usage, re.DOTALL)
    return [block.replace("\\\n", " ") for block in blocks]


def _run_curl(command: str, backend: BackendProcess) -> dict[str, Any]:
    arguments = shlex.split(command.replace("http://127.0.0.1:8002", backend.url))
    done = subprocess.run(arguments, capture_output=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_greeting_says_what_was_found_and_gives_a_line_that_works(backend: BackendProcess) -> None:
    lines = backend.greeting.splitlines()

    answer = _run_curl(lines[2].removeprefix("Try: "), backend)

    assert lines[0].startswith("Found Ollama ")
    assert "enabled for this run" in lines[1]
    assert answer["response"].strip()


def test_readme_lists_models_and_chats(backend: BackendProcess) -> None:
    listing, _, chat = _readme_commands()

    models = _run_curl(listing, backend)
    answer = _run_curl(chat, backend)

    assert models["total"] == 1
    assert set(models["models"][0]) >= {"name", "size", "modified_at", "digest", "details"}
    assert models["models"][0]["name"] == MODEL
    assert re.fullmatch("sha256:[0-9a-f]{64}", models["models"][0]["digest"])
    assert answer["response"].strip()
    assert (answer["provider"], answer["model"]) == ("ollama", MODEL)
    assert answer["usage"]["estimated"] is False
    assert MODEL in answer["notice"]


def test_readme_pull_fetches_a_model_and_it_answers(tmp_path: Path, registry: Registry) -> None:
    registry.add_smollm2("library/tiny:1")
    name = f"{registry.host}/library/tiny:1"
    with (
        EngineProcess(tmp_path / "models") as engine,
        BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as backend,
    ):
        command = _readme_commands()[1].replace('"llama3.2:1b"', f'"{name}", "insecure": true')

        pulled = _run_curl(command, backend)
        answer = backend.post("/api/chat", {**SHORT, "model": name}).json()

    assert pulled["success"] is True
    assert pulled["message"] == f"Model '{name}' pulled successfully"
    assert [part["status"] for part in pulled["status_log"]][-1] == "success"
    assert answer["response"].strip()
    assert answer["model"] == name


def test_stream_is_start_deltas_and_one_done(backend: BackendProcess) -> None:
    body = {**SHORT, "stream": True}
    with backend.post("/api/chat", body, stream=True) as response:
        got = list(stream_events(response))

    names = [name for name, _ in got]
    assert names == ["start", *["delta"] * (len(got) - 2), "done"]
    assert "".join(data["content"] for _, data in got[1:-1]) == got[-1][1]["response"]


def test_ten_chats_at_once_are_all_answered(backend: BackendProcess) -> None:
    body = SHORT
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: backend.post("/api/chat", body), range(10)))

    assert [answer.status_code for answer in answers] == [200] * 10
    assert all(answer.json()["response"].strip() for answer in answers)


def test_absent_model_is_404_with_those_there_are(backend: BackendProcess) -> None:
    response = backend.post("/api/chat", {"message": "Hi", "model": "llama3.2:70b"})

    assert response.status_code == 404
    assert response.json()["details"]["available"] == [MODEL]


def test_client_that_leaves_stops_the_model(backend: BackendProcess, engine: EngineProcess) -> None:
    stops = engine.log.count("client left")
    with backend.post("/api/chat", LONG_STORY, stream=True) as response:
        events = stream_events(response)
        while next(events)[0] != "delta":
            pass

    wait_until(lambda: engine.log.count("client left") > stops, 5)


def test_model_killed_in_mid_answer_ends_the_stream_with_an_error(
    backend: BackendProcess, engine: EngineProcess
) -> None:
    got = []
    with backend.post("/api/chat", LONG_STORY, stream=True) as response:
        for event in stream_events(response):
            got.append(event)
            if len(got) == 5:
                engine.kill_runners()
    again = backend.post("/api/chat", SHORT)

    names = [name for name, _ in got]
    assert names == ["start", *["delta"] * (len(got) - 2), "error"]
    assert got[-1][1]["error_type"] == "upstream_incomplete"
    assert again.status_code == 200


def test_body_of_50_megabytes_is_413(backend: BackendProcess) -> None:
    body = b'{"message": "' + b"x" * 50_000_000 + b'"}'

    response = requests.post(
        f"{backend.url}/api/chat", data=body, headers={"Content-Type": "application/json"}, timeout=60
    )

    assert response.status_code == 413
    assert response.json()["error_type"] == "body_too_large"


def test_smoke_script_passes_on_a_live_system(
    backend: BackendProcess, engine: EngineProcess, registry: Registry
) -> None:
    registry.add_smollm2("library/tiny:1")
    urls = ["--base-url", backend.url, "--ollama-url", engine.url]
    pull = ["--pull-model", f"{registry.host}/library/tiny:1"]

    done = subprocess.run(
        [sys.executable, "test_ollama_endpoints.py", *urls, *pull],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    engine.request("DELETE", "/api/delete", json={"model": f"{registry.host}/library/tiny:1"})

    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 passed" in done.stdout


def test_smoke_script_without_a_server_fails_and_says_what_to_do() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"

    done = subprocess.run(
        [sys.executable, "test_ollama_endpoints.py", "--base-url", nowhere, "--ollama-url", nowhere],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "make run" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, Any]:
    """A machine without Ollama: nobody at the configured address, no program on PATH."""
    return {
        "ollama_url": f"http://127.0.0.1:{free_port()}",
        "OLLAMA_MODELS": str(tmp_path / "models"),
        "PATH": "/usr/bin:/bin",
    }


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_engine_is_started_where_there_is_no_ollama_and_goes_with_the_backend(
    tmp_path: Path, nothing: dict[str, Any], how: signal.Signals
) -> None:
    engine_url = nothing["ollama_url"]
    flags = ("--ollama", "auto", "--enable", "ollama")
    with BackendProcess(tmp_path / "data", flags=flags, **nothing) as backend:
        answer = backend.post("/api/chat", SHORT).json()
        assert backend.process is not None
        backend.process.send_signal(how)
        code = backend.process.wait(15)

    assert "started the embedded engine" in backend.greeting
    assert answer["model"] == MODEL
    assert code == (-9 if how == signal.SIGKILL else 0)
    wait_until(lambda: not _answers(engine_url))


def test_engine_that_dies_is_started_again(tmp_path: Path, nothing: dict[str, Any]) -> None:
    flags = ("--ollama", "embedded", "--enable", "ollama")
    with BackendProcess(tmp_path / "data", flags=flags, **nothing) as backend:
        assert backend.process is not None
        children = subprocess.run(["pgrep", "-P", str(backend.process.pid)], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        wait_until(lambda: "starting it again" in backend.log)
        wait_until(lambda: _answers(nothing["ollama_url"]))

        answer = backend.post("/api/chat", SHORT)

    assert answer.status_code == 200


def test_ollama_program_on_the_path_is_started(tmp_path: Path, nothing: dict[str, Any]) -> None:
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" = serve ] && exec {sys.executable} -m app.engine --port "${{OLLAMA_HOST##*:}}"\n'
    )
    program.chmod(0o755)
    nothing["PATH"] = f"{program.parent}:{nothing['PATH']}"
    flags = ("--ollama", "auto", "--enable", "ollama")

    with BackendProcess(tmp_path / "data", flags=flags, **nothing) as backend:
        models = backend.get("/api/providers/ollama/models")

    assert "started `ollama serve`" in backend.greeting
    assert models.json()["total"] == 1
    wait_until(lambda: not _answers(nothing["ollama_url"]))


def test_plain_start_enables_and_starts_nothing(tmp_path: Path, nothing: dict[str, Any]) -> None:
    with BackendProcess(tmp_path / "data", **nothing) as backend:
        provider = backend.get("/api/providers/ollama").json()
        chat = backend.post("/api/chat", {"message": "Hi"})
        models = backend.get("/api/providers/ollama/models")

    assert provider["enabled"] is False
    assert chat.json()["error_type"] == "provider_disabled"
    assert models.status_code == 503
    assert not _answers(nothing["ollama_url"])


def test_port_in_use_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "backend_server.py", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "BACKEND_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "env", "text"),
    [
        (["--host", "0.0.0.0"], {}, "BACKEND_API_KEY"),
        ([], {"BACKEND_HOST": "::"}, "BACKEND_API_KEY"),
        ([], {"BACKEND_PORT": "x", "BACKEND_IDLE_TIMEOUT": "-1"}, "BACKEND_IDLE_TIMEOUT"),
        (["--enable", "nope", "--port", "0"], {}, "nope"),
        (["--nope"], {}, "--nope"),
    ],
)
def test_start_that_cannot_be_is_refused_with_a_reason(
    tmp_path: Path, flags: list[str], env: dict[str, str], text: str
) -> None:
    done = subprocess.run(
        [sys.executable, "backend_server.py", *flags],
        cwd=ROOT,
        env={**os.environ, "BACKEND_DATA_DIR": str(tmp_path), **env},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode in {1, 2}
    assert text in done.stderr
    assert "Traceback" not in done.stderr

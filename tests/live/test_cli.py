"""The command line, in a pipe and on a terminal, against the real engine."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.process import EngineProcess, wait_until
from tests.live.process import ROOT, BackendProcess
from tests.postgres import database_url
from tests.registry import Registry, smollm2_file

pytestmark = pytest.mark.live

MODEL = "smollm2:135m"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.add_model("library/tiny:1", {"model": smollm2_file(), "params": b"{}"})
        yield registry


class Flask:
    """Runs ``flask ...`` on a data folder of the test's own."""

    def __init__(self, data_dir: Path, engine: EngineProcess) -> None:
        data_dir.mkdir(exist_ok=True)
        provider = {"ollama": {"base_url": f"{engine.url}/v1"}}
        (data_dir / "providers.json").write_text(json.dumps(provider))
        self.command = [sys.executable, "-m", "flask", "--app", "app"]
        self.env = {
            **os.environ,
            "BACKEND_DATA_DIR": str(data_dir),
            "BACKEND_DATABASE_URL": database_url(data_dir),
            "OLLAMA_MODELS": str(engine.models_dir),
        }

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=100
        )


@pytest.fixture
def flask(tmp_path: Path, engine: EngineProcess) -> Flask:
    return Flask(tmp_path / "data", engine)


def test_list_prints_a_table_or_what_the_api_answers(flask: Flask) -> None:
    table, answer = flask("models", "list"), flask("models", "list", "--json")

    assert table.stdout.splitlines()[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert table.stdout.splitlines()[1].startswith(MODEL)
    assert json.loads(answer.stdout)["models"][0]["name"] == MODEL
    assert (table.returncode, answer.returncode) == (0, 0)


def test_show_tells_what_is_known(flask: Flask) -> None:
    text, answer = flask("models", "show", MODEL), flask("models", "show", MODEL, "--json")

    assert "capabilities: " in text.stdout
    assert json.loads(answer.stdout)["context"]["trained"] == 8192


def test_copy_disk_and_remove_say_what_is_freed(flask: Flask) -> None:
    copied = flask("models", "cp", MODEL, "copied")
    disk = json.loads(flask("models", "disk", "--json").stdout)
    table = flask("models", "disk").stdout
    would = flask("models", "rm", "copied", "--dry-run")
    removed = flask("models", "rm", "copied")

    assert copied.stdout == f"{MODEL} is now also copied:latest\n"
    assert [MODEL, "copied:latest"] in [sorted(names, reverse=True) for names in disk["duplicates"]]
    assert "SAFE TO REMOVE" in table
    assert "Nothing is known of its use before" in table
    assert "copied:latest: would free 0 B" in would.stdout
    assert "copied:latest: freed 0 B" in removed.stdout
    assert "copied" not in flask("models", "list").stdout


def test_remove_refuses_a_protected_model_and_says_how_to_go_on(flask: Flask) -> None:
    (Path(flask.env["BACKEND_DATA_DIR"]) / "settings.json").write_text(
        '{"protected_models": ["SMOLLM2:135m"]}'
    )

    refused = flask("models", "rm", MODEL)

    assert refused.returncode == 1
    assert "protected" in refused.stderr
    assert "PUT /api/settings" in refused.stderr


def test_running_lists_what_is_in_memory(flask: Flask, engine: EngineProcess) -> None:
    engine.post("/api/generate", {"model": MODEL, "keep_alive": 60})

    assert MODEL in flask("models", "running").stdout
    engine.post("/api/generate", {"model": MODEL, "keep_alive": 0})


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["models", "show", "nope"], 1, "is not installed"),
        (["models", "rm", "../x"], 1, "Not a model name"),
        (["models", "pull", "evil.example/a/b"], 1, "BACKEND_ALLOWED_REGISTRIES"),
        (["models", "show"], 2, "Missing argument"),
        (["models", "nope"], 2, "No such command"),
    ],
)
def test_failure_is_a_sentence_and_an_exit_code(
    flask: Flask, arguments: list[str], code: int, text: str
) -> None:
    done = flask(*arguments)

    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_pull_in_a_pipe_prints_plain_lines(flask: Flask, engine: EngineProcess, registry: Registry) -> None:
    name = registry.name("library/tiny:1")

    done = flask("models", "pull", name, "--insecure")
    again = flask("models", "pull", name, "--insecure", "--json")
    unknown = flask("models", "pull", registry.name("library/nope"), "--insecure")
    flask("models", "rm", name)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Model '{name}' pulled successfully"
    assert "\x1b" not in done.stdout
    assert json.loads(again.stdout.splitlines()[-1])["event"] == "done"
    assert unknown.returncode == 1
    assert "ollama.com/library" in unknown.stderr


def test_pull_on_a_terminal_shows_a_bar(flask: Flask, engine: EngineProcess, registry: Registry) -> None:
    name = registry.name("library/tiny:1")
    ours, theirs = pty.openpty()
    command = [*flask.command, "models", "pull", name, "--insecure"]

    with subprocess.Popen(command, cwd=ROOT, env=flask.env, stdin=theirs, stdout=theirs, stderr=theirs) as p:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    flask("models", "rm", name)

    assert p.returncode == 0
    assert "━".encode() in shown
    assert b"MB" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.parametrize(("answer", "outcome"), [(b"y\n", "done"), (b"n\n", "cancelled")])
def test_ctrl_c_asks_whether_to_leave_the_pull_running(
    flask: Flask, tmp_path: Path, engine: EngineProcess, registry: Registry, answer: bytes, outcome: str
) -> None:
    content = os.urandom(30_000_000)
    registry.add_model("library/big:1", {"model": content})
    registry.faults.bytes_per_second = 10_000_000
    name = registry.name("library/big:1")
    ours, theirs = pty.openpty()
    command = [*flask.command, "models", "pull", name, "--insecure"]
    shown = b""
    with (
        BackendProcess(tmp_path / "data", engine.url, ("--enable", "ollama")) as backend,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=flask.env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process,
    ):
        os.close(theirs)
        while b"pulling" not in shown:
            shown += _read(ours)
        process.send_signal(signal.SIGINT)
        while b"[Y/n]" not in shown:
            shown += _read(ours)
        os.write(ours, answer)
        while part := _read(ours):
            shown += part
        pulls = "/api/providers/ollama/pulls"
        wait_until(lambda: backend.get(pulls).json()["pulls"][0]["status"] not in {"queued", "running"}, 60)
        status = backend.get(pulls).json()["pulls"][0]["status"]
    os.close(ours)

    assert process.returncode == 0
    assert status == outcome or (outcome == "done" and status == "failed"), shown.decode()

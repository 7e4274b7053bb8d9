"""The engine as a process: chats, crashes of the runner, clients that leave, load and unload."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.engine.conftest import MODEL
from tests.engine.process import ROOT, EngineProcess, wait_until
from tests.wire import recording

pytestmark = pytest.mark.live

STORY = [{"role": "user", "content": "Write a very long story about the sea."}]
HELLO = [{"role": "user", "content": "Say hello in five words."}]


def data_lines(lines: Iterator[bytes]) -> Iterator[str]:
    return (line.decode()[6:] for line in lines if line.startswith(b"data: "))


def stream_story(
    engine: EngineProcess, path: str = "/v1/chat/completions"
) -> tuple[requests.Response, Iterator[bytes]]:
    """Begin a long answer and wait for its first line."""
    body = {"model": MODEL, "messages": STORY, "stream": True}
    response = engine.post(path, body, stream=True)
    lines = response.iter_lines(chunk_size=None)
    assert next(lines)
    return response, lines


def is_idle(engine: EngineProcess) -> bool:
    """Whether the runners use no processor time now (Linux)."""

    def used() -> list[str]:
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in engine.runner_pids()]
        return [stat.rpartition(")")[2].split()[11] for stat in stats]

    before = used()
    time.sleep(0.1)  # ten ticks of the clock by which the kernel counts
    return used() == before


def loaded_names(engine: EngineProcess) -> list[str]:
    return [model["name"] for model in engine.get("/api/ps").json()["models"]]


def test_v1_stream_ends_with_finish_reason_usage_and_done(engine: EngineProcess) -> None:
    body = {
        "model": "SmolLM2:135M",
        "messages": HELLO,
        "stream": True,
        "max_tokens": 4,
        "temperature": 0,
        "stream_options": {"include_usage": True},
    }

    lines = list(data_lines(engine.post("/v1/chat/completions", body).iter_lines()))

    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert {chunk["model"] for chunk in chunks} == {"SmolLM2:135M"}
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 4


def test_native_chat_streams_what_it_answers_whole(engine: EngineProcess) -> None:
    options = {"temperature": 0, "seed": 7, "num_predict": 12}
    body = {"model": MODEL, "messages": HELLO, "options": options}

    streamed = [json.loads(line) for line in engine.post("/api/chat", body).iter_lines()]
    whole = engine.post("/api/chat", {**body, "stream": False}).json()

    text = "".join(line["message"]["content"] for line in streamed)
    assert text == whole["message"]["content"]
    assert [line["done"] for line in streamed].index(True) == len(streamed) - 1
    assert whole["eval_count"] == streamed[-1]["eval_count"] > 0
    assert whole["total_duration"] >= whole["eval_duration"] > 0


def test_native_chat_with_schema_answers_in_that_form(engine: EngineProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
    }
    body = {"model": MODEL, "messages": HELLO, "stream": False, "format": schema}

    answer = engine.post("/api/chat", body).json()

    assert json.loads(answer["message"]["content"])["colour"] in {"red", "blue"}


def test_generate_answers_a_prompt(engine: EngineProcess) -> None:
    body = {"model": MODEL, "prompt": "Name a colour.", "system": "Be brief.", "stream": False}

    answer = engine.post("/api/generate", {**body, "options": {"num_predict": 5}}).json()

    assert answer["response"]
    assert answer["done_reason"] in {"stop", "length"}


def test_system_prompt_of_the_model_reaches_the_runner(engine: EngineProcess) -> None:
    create = {"model": "pirate", "from": MODEL, "system": "Talk like a pirate. " * 20}
    engine.post("/api/create", {**create, "stream": False})
    body = {"messages": HELLO, "max_tokens": 1}

    plain = engine.post("/v1/chat/completions", {**body, "model": MODEL}).json()
    pirate = engine.post("/v1/chat/completions", {**body, "model": "pirate"}).json()

    engine.request("DELETE", "/api/delete", json={"model": "pirate"})
    assert pirate["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 50


@pytest.mark.parametrize(
    "messages",
    ["hi", ["hi"], [{"role": 5}], [{"role": "user", "tool_calls": ["x"]}], [{"role": "user", "images": "x"}]],
)
def test_native_messages_of_a_wrong_type_are_400(engine: EngineProcess, messages: object) -> None:
    response = engine.post("/api/chat", {"model": MODEL, "messages": messages})

    assert response.status_code == 400
    assert response.json()["error"].startswith("json: cannot unmarshal ")


def test_ten_conversations_at_once_are_all_answered(engine: EngineProcess) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 8}

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: engine.post("/v1/chat/completions", body).json(), range(10)))

    assert all(answer["choices"][0]["message"]["content"] for answer in answers)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_client_leaving_stops_the_generation(engine: EngineProcess, path: str) -> None:
    before = engine.log.count("stopped: client left")
    response, _ = stream_story(engine, path)

    response.close()

    wait_until(lambda: engine.log.count("stopped: client left") > before)
    wait_until(lambda: is_idle(engine))


def test_client_leaving_before_the_first_token_stops_the_prompt(engine: EngineProcess) -> None:
    engine.post("/api/generate", {"model": MODEL})  # load it
    wait_until(lambda: is_idle(engine))
    before = engine.log.count("stopped: client left")
    long_prompt = [{"role": "user", "content": "word " * 3500}]
    body = {"model": MODEL, "messages": long_prompt, "stream": True}

    with closing(http.client.HTTPConnection(engine.url.removeprefix("http://"))) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        wait_until(lambda: not is_idle(engine))

    wait_until(lambda: engine.log.count("stopped: client left") > before)
    wait_until(lambda: is_idle(engine), 60)  # the runner first ends the batch of the prompt that it reads


def test_killed_runner_ends_a_v1_stream_as_ollama_does(own_engine: EngineProcess) -> None:
    _, rest = stream_story(own_engine)

    own_engine.kill_runners()
    lines = list(data_lines(rest))

    recorded = recording("v1_chat_runner_killed_midstream").body.splitlines()
    last = json.loads([line for line in recorded if line.startswith(b"data: ")][-1][6:])
    ours = json.loads(lines[-1])
    assert ours["model"] == last["model"] == ""
    assert ours["choices"] == last["choices"]
    assert ours.keys() == last.keys()


def test_killed_runner_ends_native_stream_with_error_and_is_loaded_again(
    own_engine: EngineProcess,
) -> None:
    _, rest = stream_story(own_engine, "/api/chat")

    own_engine.kill_runners()
    last = list(rest)[-1]
    again = own_engine.post("/api/chat", {"model": MODEL, "messages": HELLO, "stream": False})

    recorded = recording("chat_native_runner_killed_midstream").body.splitlines()[-1]
    assert json.loads(last) == json.loads(recorded)
    assert again.json()["message"]["content"]


def test_killed_runner_fails_a_whole_answer_with_500(own_engine: EngineProcess) -> None:
    body = {"model": MODEL, "messages": STORY, "stream": False}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(own_engine.post, "/v1/chat/completions", body)
        wait_until(lambda: loaded_names(own_engine))

        own_engine.kill_runners()

        response = answer.result()
    assert response.status_code == 500
    assert response.json() == json.loads(recording("v1_chat_runner_killed_nostream").body)


def test_models_are_loaded_kept_and_unloaded_as_asked(own_engine: EngineProcess) -> None:
    def generate(**fields: Any) -> Any:
        return own_engine.post("/api/generate", {"model": MODEL, **fields}).json()

    assert own_engine.get("/api/ps").content == recording("ps_none").body
    assert generate(keep_alive=-1)["done_reason"] == "load"
    forever = own_engine.get("/api/ps").json()["models"][0]
    assert generate(keep_alive=0)["done_reason"] == "unload"

    recorded = json.loads(recording("ps_keep_alive_forever").body)["models"][0]
    assert forever.keys() == recorded.keys()
    assert forever["expires_at"][:3] == recorded["expires_at"][:3]
    wait_until(lambda: not loaded_names(own_engine) and not own_engine.runner_pids())
    assert generate(keep_alive="200ms")["done_reason"] == "load"
    wait_until(lambda: not loaded_names(own_engine))


def test_copies_share_one_runner_and_the_least_used_model_makes_room(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "models", arguments=["--max-loaded", "1"]) as engine:
        engine.post("/api/copy", {"source": MODEL, "destination": "twin"})
        create = {"model": "other", "from": MODEL, "parameters": {"num_ctx": 512}}
        engine.post("/api/create", {**create, "stream": False})

        engine.post("/api/generate", {"model": "twin"})
        engine.post("/api/generate", {"model": MODEL})
        shared = loaded_names(engine)
        engine.post("/api/generate", {"model": "other"})
        other = engine.get("/api/ps").json()["models"]

    assert shared == ["twin:latest"]
    assert [(model["name"], model["context_length"]) for model in other] == [("other:latest", 512)]


def test_larger_context_loads_the_model_again(own_engine: EngineProcess) -> None:
    body = {"model": MODEL, "messages": HELLO, "stream": False}

    own_engine.post("/api/chat", {**body, "options": {"num_ctx": 512, "num_predict": 1}})
    small = own_engine.get("/api/ps").json()["models"][0]["context_length"]
    own_engine.post("/api/chat", {**body, "options": {"num_ctx": 1024, "num_predict": 1}})
    large = own_engine.get("/api/ps").json()["models"][0]["context_length"]

    assert (small, large) == (512, 1024)


def test_damaged_and_missing_weights_are_told_as_ollama_tells(own_engine: EngineProcess) -> None:
    folder = own_engine.models_dir / "blobs"
    blob = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    body = {"model": MODEL, "messages": HELLO}
    start = blob.read_bytes()[:5_000_000]
    blob.unlink()  # it is a second name of the wheel's file: do not write into that

    gone = own_engine.post("/api/chat", body)
    shown = own_engine.post("/api/show", {"model": MODEL})
    listed = own_engine.get("/api/tags").json()["models"]
    blob.write_bytes(start)
    cut = own_engine.post("/api/chat", body)
    cut_v1 = own_engine.post("/v1/chat/completions", body)

    assert (gone.status_code, gone.content) == (404, recording("chat_native_blob_missing").body)
    assert (shown.status_code, shown.content) == (404, recording("show_blob_missing").body)
    assert [model["name"] for model in listed] == [MODEL]
    assert cut.status_code == cut_v1.status_code == 500
    assert "exceeds file size (5000000)" in cut.json()["error"]
    assert cut_v1.json()["error"]["type"] == "api_error"


def test_runner_answers_nobody_but_the_engine(engine: EngineProcess) -> None:
    engine.post("/api/generate", {"model": MODEL})
    command = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in engine.runner_pids())

    sockets = _listening_ports(engine.runner_pids())
    answers = [requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=5) for port in sockets]

    assert b"api_key" not in command
    assert [answer.status_code for answer in answers] == [401] * len(answers)
    assert answers


def _listening_ports(pids: list[int]) -> list[int]:
    """The loopback ports on which the processes listen (Linux)."""
    ports = []
    for pid in pids:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.append(int(fields[1].partition(":")[2], 16))
    return ports


def test_engine_and_runner_end_when_the_parent_is_gone(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "models") as engine:
        engine.post("/api/generate", {"model": MODEL})
        runners = engine.runner_pids()
        assert engine.process is not None
        assert engine.process.stdin is not None

        engine.process.stdin.close()

        assert engine.process.wait(10) == 0
    wait_until(lambda: not any(_is_running(pid) for pid in runners))


def test_runner_ends_when_the_engine_is_killed(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "models") as engine:
        engine.post("/api/generate", {"model": MODEL})
        runners = engine.runner_pids()

        os.kill(engine.pid, signal.SIGKILL)

        wait_until(lambda: not any(_is_running(pid) for pid in runners))
    assert runners


def _is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_port_in_use_is_one_sentence_and_exit_code_1(engine: EngineProcess, tmp_path: Path) -> None:
    port = engine.url.rpartition(":")[2]

    ended = subprocess.run(
        [sys.executable, "-m", "app.engine", "--port", port, "--models", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"Cannot listen on 127.0.0.1:{port}: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["--port", "99999"], "invalid port_number value: '99999'", 2),
        (["--keep-alive", "soon"], '--keep-alive: time: invalid duration "soon".', 1),
        (["--models", "/dev/null/x"], "The models folder /dev/null/x cannot be used: ", 1),
        (["--host", "192.0.2.1", "--port", "0"], "Cannot listen on 192.0.2.1:0: ", 1),
    ],
)
def test_flag_that_cannot_be_used_is_named(
    tmp_path: Path, arguments: list[str], sentence: str, code: int
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app.engine", "--models", str(tmp_path), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
    assert sentence in ended.stderr.splitlines()[-1]

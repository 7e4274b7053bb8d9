"""Clients that people have already: the official openai client and the `llm` command line tool."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.embedder import WIDTH, install
from tests.engine.process import EngineProcess
from tests.live.process import ROOT, BackendProcess
from tests.raw_server import Connection, raw_server

pytestmark = pytest.mark.live

MODEL = "smollm2:135m"
EMBEDDER = "embedder:latest"
KEY = "a-long-random-text"
HI = [{"role": "user", "content": "Say hello in five words."}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("clients") / "models") as engine:
        yield engine


@pytest.fixture(scope="module")
def embedder(engine: EngineProcess) -> str:
    """The name of a model that makes embeddings."""
    install(engine, EMBEDDER)
    return EMBEDDER


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, engine: EngineProcess) -> Iterator[BackendProcess]:
    data_dir = tmp_path_factory.mktemp("clients") / "data"
    with BackendProcess(data_dir, engine.url, ("--enable", "ollama"), BACKEND_API_KEY=KEY) as backend:
        yield backend


@pytest.fixture
def client(backend: BackendProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{backend.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", [MODEL, f"ollama/{MODEL}"])
def test_openai_client_chats(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HI, max_tokens=8, temperature=0)

    assert answer.choices[0].message.content
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_openai_client_streams(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=8, temperature=0, stream=True, stream_options=options
    )

    chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=8, temperature=0)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_openai_client_completes(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=4)

    assert answer.choices[0].text


def test_openai_client_lists_models(client: openai.OpenAI) -> None:
    listed = client.models.list()

    shown = client.models.retrieve(MODEL)

    assert MODEL in [model.id for model in listed]
    assert (shown.id, shown.owned_by) == (MODEL, "library")


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_openai_client_embeds(client: openai.OpenAI, embedder: str, options: dict[str, str]) -> None:
    answer = client.embeddings.create(model=embedder, input=["The sky", "The sea"], **options)

    assert [len(entry.embedding) for entry in answer.data] == [WIDTH, WIDTH]


def test_our_own_embeddings_come_from_the_model_that_can(backend: BackendProcess, embedder: str) -> None:
    answer = backend.post("/api/embeddings", {"input": "The sky"}, headers={"X-API-Key": KEY}).json()

    assert answer["model"] == embedder
    assert [len(vector) for vector in answer["embeddings"]] == [WIDTH]


def test_openai_client_raises_its_own_errors(client: openai.OpenAI, backend: BackendProcess) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL) as missing:
        client.chat.completions.create(model="nope:1b", messages=HI)
    with pytest.raises(openai.BadRequestError, match="disabled") as disabled:
        client.chat.completions.create(model="openai/gpt-4o", messages=HI)
    with pytest.raises(openai.BadRequestError, match="cannot make embeddings") as unable:
        client.embeddings.create(model=MODEL, input="x")
    with (
        openai.OpenAI(base_url=f"{backend.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="API key"),
    ):
        stranger.models.list()

    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert (disabled.value.code, disabled.value.type) == ("provider_disabled", "invalid_request_error")
    assert unable.value.code == "capability_missing"


def test_openai_client_raises_when_the_runner_dies_in_mid_stream(
    client: openai.OpenAI, engine: EngineProcess
) -> None:
    story = [{"role": "user", "content": "Write a very long story about the sea."}]
    stream = client.chat.completions.create(model=MODEL, messages=story, stream=True)
    chunks = iter(stream)
    next(chunks)

    engine.kill_runners()

    with pytest.raises(openai.APIError, match="before its answer was complete"):
        list(chunks)


def test_client_that_leaves_before_the_first_byte_frees_the_provider(tmp_path: Path) -> None:
    hung_up = threading.Event()

    def stall(connection: Connection) -> None:
        connection.wait_for_close()
        hung_up.set()

    with (
        raw_server(stall) as upstream,
        BackendProcess(tmp_path / "data", upstream.url, ("--enable", "ollama")) as backend,
        openai.OpenAI(base_url=f"{backend.url}/v1", api_key="x", max_retries=0, timeout=1) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="x", messages=HI, stream=True)

        assert hung_up.wait(10)


def _documented(language: str) -> list[str]:
    """Return the blocks of *language* in the documentation."""
    text = (ROOT / "docs" / "openai.md").read_text()
    return [block.replace("\\\n", " ") for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def _adapted(block: str, backend: BackendProcess) -> str:
    for old, new in {
        "http://127.0.0.1:8002": backend.url,
        "llama3.2:1b": MODEL,
        '"none"': f'"{KEY}"',
    }.items():
        block = block.replace(old, new)
    return block


@pytest.mark.parametrize("number", range(5))
def test_documented_command_works(backend: BackendProcess, embedder: str, number: int) -> None:
    command = _adapted(_documented("sh")[number], backend).replace("nomic-embed-text", embedder)
    arguments = [*shlex.split(command), "-H", f"Authorization: Bearer {KEY}"]

    done = subprocess.run(arguments, capture_output=True, check=True, timeout=60)

    if b'"stream": true' in command.encode():
        assert done.stdout.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(done.stdout).keys() & {"data", "choices", "embeddings"}


def test_documented_program_works(backend: BackendProcess) -> None:
    program = _adapted(_documented("python")[0], backend)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)

    assert done.stdout.strip()


@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
def test_llm_tool_answers_a_prompt(backend: BackendProcess, tmp_path: Path, flags: list[str]) -> None:
    entry = {
        "model_id": "local",
        "model_name": MODEL,
        "api_base": f"{backend.url}/v1",
        "api_key_name": "local",
    }
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([entry]))  # JSON is YAML
    (tmp_path / "keys.json").write_text(json.dumps({"local": KEY}))
    # No plugins: the package with the model's weights is one, and lacks what it would run them with.
    env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    command = [sys.executable, "-m", "llm", "-m", "local", "-o", "max_tokens", "16", *flags, "Say hello."]

    done = subprocess.run(command, capture_output=True, env=env, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    logged = subprocess.run(
        [sys.executable, "-m", "llm", "logs", "--json"], capture_output=True, env=env, timeout=100, check=True
    )
    (entry,) = json.loads(logged.stdout)
    assert entry["response"].strip() == done.stdout.strip()

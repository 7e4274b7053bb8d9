"""The life of a model with real processes: shown, copied, made, uploaded, loaded, deleted."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.engine.process import EngineProcess, wait_until
from tests.live.process import BackendProcess, stream_events
from tests.registry import digest_of, smollm2_file

pytestmark = pytest.mark.live

OLLAMA = "/api/providers/ollama"
MODEL = "smollm2:135m"
HELLO = {"message": "Say hello in five words.", "temperature": 0}


@pytest.fixture(autouse=True)
def _only_the_seed(backend: BackendProcess) -> Iterator[None]:
    """Leave the models as they were."""
    yield
    for name in set(_names(backend)) - {MODEL}:
        _delete(backend, name)


def _names(backend: BackendProcess) -> list[str]:
    return [model["name"] for model in backend.get(f"{OLLAMA}/models").json()["models"]]


def _show(backend: BackendProcess, model: str) -> Any:
    return backend.get(f"{OLLAMA}/models/{quote(model)}").json()


def _delete(backend: BackendProcess, model: str, query: str = "") -> Any:
    return requests.delete(f"{backend.url}{OLLAMA}/models/{quote(model)}{query}", timeout=60).json()


def _upload(backend: BackendProcess, content: Any, **query: str) -> requests.Response:
    headers = {"Content-Type": "application/octet-stream"}
    url = f"{backend.url}{OLLAMA}/create"
    return requests.post(url, params=query, data=content, headers=headers, timeout=60)


def _blobs(engine: EngineProcess) -> set[str]:
    return {path.name for path in (engine.models_dir / "blobs").iterdir()}


def _memory_peak(pid: int) -> int:
    """Bytes of the most memory that a process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_get_model_tells_all_of_it(backend: BackendProcess) -> None:
    answer = _show(backend, MODEL)

    assert answer["name"] == MODEL
    assert answer["details"]["quantization_level"] == "Q4_1"
    assert answer["capabilities"] == ["completion"]
    assert answer["context"]["trained"] == 8192
    assert answer["parameters"]["stop"] == ["<|im_start|>", "<|im_end|>"]
    assert "im_start" in answer["template"]
    assert answer["aliases"] == []


def test_copy_is_an_alias_and_its_deletion_frees_nothing(
    backend: BackendProcess, engine: EngineProcess
) -> None:
    before = _blobs(engine)

    copied = backend.post(f"{OLLAMA}/copy", {"source": MODEL, "destination": "mine"})
    again = backend.post(f"{OLLAMA}/copy", {"source": MODEL, "destination": "Mine"})
    shown = _show(backend, MODEL)
    deleted = _delete(backend, "mine")

    assert copied.json() == {"source": MODEL, "destination": "mine:latest", "copied": True}
    assert (again.status_code, again.json()["error_type"]) == (409, "model_exists")
    assert shown["aliases"] == ["mine:latest"]
    assert (deleted["freed_bytes"], deleted["shared_bytes"]) == (0, shown["size"])
    assert deleted["estimated"] is False
    assert _blobs(engine) == before


def test_model_made_from_another_has_its_system_prompt_and_frees_only_its_own_layers(
    backend: BackendProcess, engine: EngineProcess
) -> None:
    before = _blobs(engine)
    wanted = {
        "model": "pirate",
        "from": MODEL,
        "system": "You talk like a pirate.",
        "parameters": {"num_ctx": 1024, "temperature": 0.1},
    }

    created = backend.post(f"{OLLAMA}/create", wanted)
    shown = _show(backend, "pirate")
    added = _blobs(engine) - before
    expected = _delete(backend, "pirate", "?dry_run=true")
    still_there = _blobs(engine)
    deleted = _delete(backend, "pirate")

    assert created.status_code == 200
    assert created.json()["status_log"][-1]["status"] == "success"
    assert shown["system"] == "You talk like a pirate."
    assert shown["parameters"]["temperature"] == 0.1
    assert shown["context"]["in_force"] == 1024
    assert (expected["deleted"], deleted["deleted"]) == (False, True)
    assert expected["freed_bytes"] == deleted["freed_bytes"] > 0
    assert deleted["freed_bytes"] + deleted["shared_bytes"] == shown["size"]
    freed = {layer["digest"].replace(":", "-") for layer in deleted["layers"] if layer["freed"]}
    assert freed == added
    assert still_there == before | added
    assert _blobs(engine) == before
    assert _names(backend) == [MODEL]


def test_create_from_a_model_that_is_not_here_pulls_nothing(
    backend: BackendProcess, engine: EngineProcess
) -> None:
    response = backend.post(f"{OLLAMA}/create", {"model": "x", "from": "nonexistent"})

    assert response.status_code == 404
    assert response.json()["details"]["available"] == [MODEL]
    assert "/api/pull" not in engine.log


def test_uploaded_gguf_becomes_a_model_that_chats(backend: BackendProcess, engine: EngineProcess) -> None:
    size, digest = smollm2_file().stat().st_size, digest_of(smollm2_file())
    assert backend.process is not None
    before = _memory_peak(backend.process.pid)

    with smollm2_file().open("rb") as file:
        response = _upload(backend, file, model="uploaded", digest=digest, system="Be brief.")
    grown = _memory_peak(backend.process.pid) - before
    shown = _show(backend, "uploaded")
    answer = backend.post("/api/chat", {**HELLO, "model": "uploaded"}).json()

    assert response.status_code == 200, response.text
    assert response.json()["model"] == "uploaded:latest"
    assert shown["system"] == "Be brief."
    assert answer["response"].strip()
    assert answer["model"] == "uploaded:latest" or answer["model"] == "uploaded"
    assert grown < size / 4
    assert not list(backend.data_dir.glob("tmp*"))


def test_upload_as_a_stream_of_unknown_length_ends_with_done(backend: BackendProcess) -> None:
    def chunks() -> Iterator[bytes]:
        with smollm2_file().open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

    response = _upload(backend, chunks(), model="streamed", stream="true")

    names = [name for name, _ in stream_events(response)]
    assert names == ["progress"] * (len(names) - 1) + ["done"]
    assert "streamed:latest" in _names(backend)


@pytest.mark.parametrize(
    ("content", "query", "error_type"),
    [
        (b"not a model", {}, "invalid_upload"),
        (b"GGUF" + b"x" * 1000, {"digest": f"sha256:{'0' * 64}"}, "invalid_upload"),
        (b"GGUF" + b"x" * 1000, {}, "invalid_upload"),
    ],
)
def test_upload_of_something_else_installs_nothing(
    backend: BackendProcess, content: bytes, query: dict[str, str], error_type: str
) -> None:
    response = _upload(backend, content, model="broken", **query)

    assert response.json()["error_type"] == error_type
    assert _names(backend) == [MODEL]


def test_upload_of_half_a_model_installs_nothing(backend: BackendProcess) -> None:
    half = smollm2_file().read_bytes()[: 1 << 20]

    response = _upload(backend, half, model="half")

    assert response.json()["error_type"] == "invalid_upload"
    assert _names(backend) == [MODEL]


def test_upload_that_breaks_off_installs_nothing(backend: BackendProcess, engine: EngineProcess) -> None:
    address = urlsplit(backend.url)
    digest = hashlib.sha256(b"GGUF" + b"x" * 100_000).hexdigest()
    head = (
        f"POST {OLLAMA}/create?model=cut HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 98000000\r\n\r\n"
    )

    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"GGUF" + b"x" * 100_000)

    assert _names(backend) == [MODEL]
    assert f"sha256-{digest}" not in _blobs(engine)
    assert not list(backend.data_dir.glob("tmp*"))


def test_upload_over_the_limit_is_413(backend: BackendProcess) -> None:
    address = urlsplit(backend.url)
    head = (
        f"POST {OLLAMA}/create?model=cut HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 200000001\r\n\r\n"
    )

    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(1000)

    assert answer.startswith(b"HTTP/1.1 413")


def test_load_running_and_unload_agree(backend: BackendProcess, engine: EngineProcess) -> None:
    backend.post(f"{OLLAMA}/unload", {"model": MODEL})

    loaded = backend.post(f"{OLLAMA}/load", {"model": MODEL, "keep_alive": -1}).json()
    running = backend.get(f"{OLLAMA}/running").json()
    listed = backend.get(f"{OLLAMA}/models?loaded=true").json()
    shown = _show(backend, MODEL)
    bad = backend.post(f"{OLLAMA}/load", {"model": MODEL, "keep_alive": "300"})
    unloaded = backend.post(f"{OLLAMA}/unload", {"model": MODEL}).json()

    assert (loaded["loaded"], loaded["forever"], loaded["expires_at"]) == (True, True, None)
    assert loaded["size"] > 90_000_000
    assert [model["name"] for model in running["models"]] == [MODEL]
    assert running["models"][0]["digest"] == shown["digest"]
    assert [model["name"] for model in listed["models"]] == [MODEL]
    assert shown["context"]["in_force"] == running["models"][0]["context_length"] > 0
    assert bad.status_code == 400
    assert unloaded == {"model": MODEL, "loaded": False}
    assert backend.get(f"{OLLAMA}/running").json()["total"] == 0
    wait_until(lambda: not engine.runner_pids())


def test_delete_unloads_the_model_first(backend: BackendProcess, engine: EngineProcess) -> None:
    wanted = {"model": "loaded", "from": MODEL, "system": "Hi."}
    backend.post(f"{OLLAMA}/create", wanted)
    backend.post(f"{OLLAMA}/load", {"model": "loaded", "keep_alive": "1h"})

    deleted = _delete(backend, "loaded")

    assert deleted["deleted"] is True
    assert backend.get(f"{OLLAMA}/running").json()["total"] == 0
    assert _names(backend) == [MODEL]


def test_list_of_an_ollama_that_went_away_is_marked_stale(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "models") as engine:
        with BackendProcess(tmp_path / "data", engine.url) as first:
            fresh = first.get(f"{OLLAMA}/models").json()
        url = engine.url
    with BackendProcess(tmp_path / "data", url) as second:
        down = second.get(f"{OLLAMA}/models")
        stale = second.get(f"{OLLAMA}/models?stale=ok").json()

    assert down.status_code == 503
    assert stale["models"] == fresh["models"]
    assert stale["stale"] is True

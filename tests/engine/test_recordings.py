"""The engine's answers next to a real Ollama's: ``tests/wire``, sent again."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.engine.conftest import MODEL
from tests.engine.process import EngineProcess
from tests.wire import FOLDER, recording

pytestmark = pytest.mark.live

# Routes that the engine does not have
OTHER_ROUTES = ("push_", "v1_messages", "v1_responses", "queue_busy_")
# Recordings of a state that the tests of their own bring about
OTHER_STATES = {
    "blob_post_again", "chat_native_blob_missing", "chat_native_client_disconnect",
    "chat_native_load_failure", "chat_native_runner_killed_midstream",
    "chat_on_deleted_loaded_model", "chat_on_pulled_model", "delete_loaded_model", "delete_pulled",
    "create_gguf_stream", "load_failure_generate_empty", "ps_none", "ps_after_unload",
    "show_blob_missing", "tags_blob_missing", "tags_empty", "tags_head", "v1_chat_client_disconnect",
    "v1_chat_load_failure", "v1_chat_runner_killed_midstream", "v1_chat_runner_killed_nostream",
    "v1_models_empty", "blob_post_created", "chat_native_too_long",
}  # fmt: skip
# What is known to differ, and why
DIFFERENT = {
    # the name server is not ours to name
    "create_from_unknown", "pull_default_registry_no_internet",
    "pull_default_registry_no_internet_nostream",
    # llama.cpp's words
    "v1_chat_json_schema_bad",
    # the store's folder is in the text
    "create_unknown_blob",
}  # fmt: skip
LEFT_OUT = {
    "context",  # the old way to go on with a conversation
    "tool_calls",  # what this small model says is chance
    "role",  # llama.cpp leaves it out when the first token is half a character
    "usage",  # llama.cpp sends it in the last chunk only
}
PULLS = tuple(
    path.stem
    for path in (FOLDER / "responses").glob("pull_*.http")
    if b"127.0.0.1:5005" in (FOLDER / "requests" / f"{path.stem}.req").read_bytes()
)
NAMES = sorted(
    path.stem
    for path in (FOLDER / "requests").glob("*.req")
    if not path.stem.startswith(OTHER_ROUTES) and path.stem not in OTHER_STATES | set(PULLS)
)


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes


@pytest.fixture(scope="module")
def tooly() -> Any:
    """The body that made the model with tools."""
    raw = (FOLDER / "requests" / "create_tools_template.req").read_bytes()
    return json.loads(raw.partition(b"\r\n\r\n")[2])


@pytest.fixture
def prepared(engine: EngineProcess, tooly: Any) -> EngineProcess:
    """The engine with the models that the recordings name."""
    installed = {model["name"] for model in engine.get("/api/tags").json()["models"]}
    for name in {"llama3.2:1b", "smollm2-copy", "derived"} - installed:
        engine.post("/api/copy", {"source": MODEL, "destination": name})
    if "tooly:latest" not in installed:
        engine.post("/api/create", tooly)
    return engine


def send(engine: EngineProcess, name: str) -> Answer:
    """Send the recorded request to the engine, header for header."""
    raw = (FOLDER / "requests" / f"{name}.req").read_bytes()
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    method, path, _ = line.split(" ")
    connection = http.client.HTTPConnection(urlsplit(engine.url).netloc, timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for header in headers:
        key, _, value = header.partition(": ")
        connection.putheader(key, str(len(body)) if key == "Content-Length" else value)
    connection.endheaders(body or None)
    response = connection.getresponse()
    answer = Answer(response.status, response.getheader("Content-Type", ""), response.read())
    connection.close()
    return answer


def objects(content_type: str, body: bytes) -> list[Any]:
    """All JSON objects of an answer, be it one or a stream of them."""
    if content_type.startswith("application/json"):
        return [json.loads(body)] if body.strip() else []
    if content_type == "text/event-stream":
        lines = [line[6:] for line in body.splitlines() if line.startswith(b"data: {")]
        return [json.loads(line) for line in lines]
    return [json.loads(line) for line in body.splitlines() if line.startswith(b"{")]


def missing(recorded: Any, ours: Any, path: str = "") -> list[str]:
    """The keys that Ollama sent and we did not."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        absent = [f"{path}.{key}" for key in recorded.keys() - ours.keys() - LEFT_OUT]
        shared = recorded.keys() & ours.keys()
        return absent + [
            entry for key in shared for entry in missing(recorded[key], ours[key], f"{path}.{key}")
        ]
    if isinstance(recorded, list) and isinstance(ours, list) and recorded and ours:
        return missing(recorded[0], ours[0], f"{path}[]")
    return []


@pytest.mark.parametrize("name", NAMES)
def test_recording_is_answered_as_ollama_answered_it(prepared: EngineProcess, name: str) -> None:
    recorded = recording(name)

    answer = send(prepared, name)

    assert (answer.status, answer.content_type) == (recorded.status, recorded.content_type)
    if "json" not in recorded.content_type and "event" not in recorded.content_type:
        assert answer.body == recorded.body
        return
    theirs = objects(recorded.content_type, recorded.body)
    ours = objects(answer.content_type, answer.body)
    assert bool(theirs) == bool(ours)
    for index in (0, -1) if theirs else ():
        assert missing(theirs[index], ours[index]) == []
        if "error" in theirs[index] and name not in DIFFERENT:
            assert ours[index] == theirs[index]

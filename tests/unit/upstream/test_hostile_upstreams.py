"""Every place that reads an upstream, and everything that an upstream without end or sense may send there."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.config import Config
from tests.conftest import events
from tests.raw_server import Connection, raw_server

API = "/api/providers/ollama"
NAME = "127.0.0.1:1/library/a:latest"  # whose registry is not there
MODEL = {"name": "a:1", "size": 3, "digest": "0" * 64, "modified_at": "2026-01-01T00:00:00Z"}
GOOD: dict[str, Any] = {
    "/api/tags": {"models": [MODEL]},
    "/api/ps": {"models": []},
    "/api/version": {"version": "0.30.0"},
    "/api/show": {},
    "/v1/models": {"data": [{"id": "m"}]},
}
MOST = 20_000_000


@dataclass(frozen=True)
class Door:
    """A request of a client, and the path of the upstream that is asked for it."""

    path: str
    method: str
    url: str
    body: dict[str, Any] | None = None

    def ask(self, client: FlaskClient) -> dict[str, Any]:
        """Send the request, and return the error; of a stream, the data of its only terminal event."""
        response = client.open(self.url, method=self.method, json=self.body)
        if response.mimetype != "text/event-stream":
            found: Any = response.json
        elif self.url.startswith("/v1"):
            *_, last = response.data.decode(errors="replace").strip().split("data: ")
            found = json.loads(last)
        else:
            told = events(response)
            assert [name for name, _ in told if name in {"done", "error"}] == ["error"]
            found = told[-1][1]
        error = found.get("error")
        return {**error, "error_type": error["code"]} if isinstance(error, dict) else found


CHAT = {"message": "Hi", "provider": "openai", "model": "m"}
NATIVE = {"message": "Hi", "model": "a:1", "think": False}
PASSED = {"model": "openai/m", "messages": [{"role": "user", "content": "Hi"}]}
PULL = {"model": NAME}
CREATE = {"model": "b", "from": "a:1"}
WHOLE = {
    "tags": Door("/api/tags", "GET", f"{API}/models"),
    "ps": Door("/api/ps", "GET", f"{API}/running"),
    "show": Door("/api/show", "POST", f"{API}/models/a:1"),
    "load": Door("/api/generate", "POST", f"{API}/load", {"model": "a:1"}),
    "unload": Door("/api/generate", "POST", f"{API}/unload", {"model": "a:1"}),
    "disk": Door("/api/tags", "GET", f"{API}/disk"),
    "updates": Door("/api/tags", "GET", f"{API}/updates"),
    "models": Door("/v1/models", "GET", "/api/providers/openai/models"),
    "model": Door("/v1/models", "GET", "/v1/models/openai/m"),
    "chat": Door("/v1/chat/completions", "POST", "/api/chat", CHAT),
    "native": Door("/api/chat", "POST", "/api/chat", NATIVE),
    "passed on": Door("/v1/chat/completions", "POST", "/v1/chat/completions", PASSED),
    "embed": Door(
        "/v1/embeddings", "POST", "/api/embeddings", {"input": "a", "provider": "openai", "model": "m"}
    ),
    "/v1 embed": Door("/v1/embeddings", "POST", "/v1/embeddings", {"input": "a", "model": "openai/m"}),
}
WHOLE["show"] = replace(WHOLE["show"], method="GET")
STREAMED = {
    "chat stream": Door("/v1/chat/completions", "POST", "/api/chat", {**CHAT, "stream": True}),
    "native stream": Door("/api/chat", "POST", "/api/chat", {**NATIVE, "stream": True}),
    "passed on stream": Door(
        "/v1/chat/completions", "POST", "/v1/chat/completions", {**PASSED, "stream": True}
    ),
    "pull": Door("/api/pull", "POST", f"{API}/pull", PULL),
    "pull stream": Door("/api/pull", "POST", f"{API}/pull", {**PULL, "stream": True}),
    "create": Door("/api/create", "POST", f"{API}/create", CREATE),
}
DOORS = [pytest.param(door, id=name) for name, door in {**WHOLE, **STREAMED}.items()]


@pytest.fixture
def config(config: Config) -> Config:
    return replace(
        config, max_answer=MOST, timeouts=replace(config.timeouts, first_byte=60, idle=60, list=60)
    )


def _is_events(connection: Connection) -> bool:
    return connection.path.startswith("/v1") and b'"stream": true' in connection.request.replace(
        b'":t', b'": t'
    )


def _head(connection: Connection, *more: str) -> bytes:
    kind = "text/event-stream" if _is_events(connection) else "application/json"
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode()


def _document(connection: Connection, data: bytes) -> bytes:
    return b"data: " + data + b"\n\n" if _is_events(connection) else data + b"\n"


def _without_end(connection: Connection) -> None:
    connection.send(_head(connection) + (b"data: " if _is_events(connection) else b"") + b'"')
    while True:
        connection.send(b"x" * 100_000)


def _lines_without_end(connection: Connection) -> None:
    connection.send(_head(connection))
    while True:
        line = b": %s\n" if _is_events(connection) else b'{"status":"x","more":"%s"}\n'
        connection.send(line % (b"x" * 10_000) * 10)


def _packed(connection: Connection) -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    connection.send(_head(connection, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}") + bomb)


def _packed_error(connection: Connection) -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    head = f"HTTP/1.1 500 x\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    connection.send(head.encode() + bomb)


def _error_without_end(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 500 x\r\nConnection: close\r\n\r\n")
    while True:
        connection.send(b"x" * 100_000)


def _heads_without_end(connection: Connection) -> None:
    while True:
        connection.send(b"HTTP/1.1 200 OK\r\n" + b"X-Much: %s\r\n" % (b"x" * 60_000) * 200)


def _sends(data: bytes) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.send(_head(connection) + _document(connection, data))

    return script


DEEP = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"models":' * 20_000 + b"1" + b"}" * 20_000
DIGITS = b'{"models":[{"size":' + b"9" * 5000 + b"}]}"
INVALID = {
    "a line without end": _without_end,
    "compressed": _packed,
    "an error without end": _error_without_end,
    "a compressed error": _packed_error,
    "headers without end": _heads_without_end,
    "deep": _sends(DEEP),
    "a deep object": _sends(DEEP_OBJECT),
    "digits": _sends(b"9" * 5000),
    "latin-1": _sends(b'{"models":"\xe4"}'),
    "not an object": _sends(b'["a"]'),
    "nothing": _sends(b""),
}


class Serving:
    """Runs *script* at *path*, and answers all else well; ``over`` is set when the script has ended."""

    def __init__(self, path: str, script: Callable[[Connection], None]) -> None:
        self.path = path
        self.script = script
        self.over = threading.Event()

    def __call__(self, connection: Connection) -> None:
        if connection.path == self.path:
            try:
                self.script(connection)
            finally:
                self.over.set()
        elif connection.path in GOOD:
            connection.send(_head(connection) + json.dumps(GOOD[connection.path]).encode())


def _ask(client: FlaskClient, point: Callable[..., None], door: Door, script: Any) -> dict[str, Any]:
    """Return the error of *door* at an upstream with *script*; the connection to it is closed afterwards."""
    serving = Serving(door.path, script)
    with raw_server(serving) as server:
        point(f"{server.url}/v1")
        point(f"{server.url}/v1", "openai")
        found = door.ask(client)
        assert serving.over.wait(30)
    return found


def _expected(door: Door, kind: str) -> set[str]:
    """Return the errors that are right for what INVALID calls *kind*."""
    found = {"invalid_upstream_response"}
    if "error" in kind:
        found.add("upstream_error")
    if kind == "nothing" and door in STREAMED.values():  # a stream that just ends was cut
        found.add("upstream_incomplete")
    if door is STREAMED["passed on stream"]:  # its small events are passed on as they are
        found.add("upstream_incomplete")
    return found


@pytest.mark.parametrize("door", DOORS)
def test_answer_that_is_none_is_an_error_that_says_so(
    client: FlaskClient, point: Callable[..., None], door: Door
) -> None:
    found = {kind: _ask(client, point, door, script) for kind, script in INVALID.items()}

    odd = {kind: error for kind, error in found.items() if error["error_type"] not in _expected(door, kind)}
    assert odd == {}


def _drips_head(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    _drip(connection)


def _drips_body(connection: Connection) -> None:
    connection.send(_head(connection))
    _drip(connection)


def _drip(connection: Connection) -> None:
    gone = threading.Event()
    with suppress(OSError):
        while not gone.wait(0.05):
            connection.send(b"x")


@pytest.mark.parametrize("door", DOORS)
def test_seconds_hold_for_the_whole_answer_though_bytes_come(
    client: FlaskClient, point: Callable[..., None], door: Door
) -> None:
    client.put("/api/settings", json={"timeouts": {"first_byte": 0.2, "idle": 0.2}})
    if door is not STREAMED["create"]:  # it asks for a list first, which needs its time
        client.put("/api/settings", json={"timeouts": {"list": 2 if "load" in door.url else 0.2}})

    head, body = (_ask(client, point, door, script) for script in (_drips_head, _drips_body))

    assert (head["error_type"], body["error_type"]) == ("upstream_timeout", "upstream_timeout")


@pytest.mark.parametrize("name", ["pull", "native stream", "chat stream", "create"])
def test_stream_has_a_limit_in_sum(client: FlaskClient, point: Callable[..., None], name: str) -> None:
    error = _ask(client, point, STREAMED[name], _lines_without_end)

    assert error["error_type"] == "invalid_upstream_response"
    assert error["details"]["max_bytes"] == MOST
    assert "BACKEND_MAX_ANSWER" in error["hint"]


def test_line_without_end_names_its_limit(client: FlaskClient, point: Callable[..., None]) -> None:
    error = _ask(client, point, STREAMED["native stream"], _without_end)

    assert error["details"] == {"max_line_bytes": 16_000_000}


@pytest.mark.parametrize(
    ("provider", "path"), [("ollama", "/api/version"), ("ollama", "/api/tags"), ("openai", "/v1/models")]
)
def test_provider_test_says_that_the_answer_is_none(
    client: FlaskClient, point: Callable[..., None], provider: str, path: str
) -> None:
    outcomes = {}
    for kind, script in INVALID.items():
        with raw_server(Serving(path, script)) as server:
            point(f"{server.url}/v1", provider)

            outcomes[kind] = client.post(f"/api/providers/{provider}/test").json["status"]  # type: ignore[index]

    assert set(outcomes.values()) <= {"not_ollama", "error"}, outcomes


@pytest.mark.parametrize("kind", ["deep", "headers without end", "compressed", "drip"])
def test_one_bad_provider_takes_no_list_away(
    client: FlaskClient, point: Callable[..., None], kind: str
) -> None:
    script = {**INVALID, "drip": _drips_head}[kind]
    with raw_server(Serving("/v1/models", script)) as bad, raw_server(Serving("", script)) as good:
        point(f"{bad.url}/v1", "openai")
        point(f"{bad.url}/v1", "groq")
        point(f"{good.url}/v1")
        point(f"{good.url}/v1", "lmstudio")

        listed = client.get("/v1/models")

    assert listed.status_code == 200
    assert {entry["id"] for entry in listed.json["data"]} == {"a:1", "lmstudio/m"}  # type: ignore[index]

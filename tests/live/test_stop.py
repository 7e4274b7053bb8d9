"""A server that is stopped by a signal while requests of every kind are under way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text

from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import ROOT, BackendProcess, GunicornProcess
from tests.postgres import WANTED, database_url
from tests.raw_server import Connection, RawServer, raw_server

pytestmark = pytest.mark.live

LIMIT = 10.0  # seconds in which the process has to end
CHAT = {"message": "Hi", "model": "x"}
OPENAI = {"model": "x", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {"stream": True}
TARGETS = {"targets": [{"provider": "ollama", "model": "x"}, {"provider": "ollama", "model": "y"}]}
DELTA = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
NATIVE = b'{"message": {"role": "assistant", "content": "Hel"}, "done": false}\n'

STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/api/chat", {**CHAT, **STREAM}),
    "native chat": ("/api/chat", {**CHAT, **STREAM, "options": {"num_ctx": 2048}}),
    "compare": ("/api/chat/compare", {"message": "Hi", **TARGETS, **STREAM}),
    "chat completion": ("/v1/chat/completions", {**OPENAI, **STREAM}),
    "completion": ("/v1/completions", {"model": "x", "prompt": "Hi", **STREAM}),
}
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "whole chat": ("/api/chat", CHAT),
    "whole compare": ("/api/chat/compare", {"message": "Hi", **TARGETS}),
    "whole chat completion": ("/v1/chat/completions", OPENAI),
    "embeddings": ("/api/embeddings", {"model": "x", "input": "Hi"}),
}


class Upstream:
    """An upstream that begins each stream, answers nothing else, and keeps which connections were closed."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.hung_up: list[str] = []

    def answer(self, connection: Connection) -> None:
        if connection.request.startswith(b"GET"):
            return
        if b'"stream": true' in connection.request or b'"stream":true' in connection.request:
            connection.send_head(
                "application/x-ndjson" if connection.path == "/api/chat" else "text/event-stream"
            )
            connection.send_chunk(NATIVE if connection.path == "/api/chat" else DELTA)
        self.begun.release()
        connection.wait_for_close()
        self.hung_up.append(connection.path)


@contextmanager
def _upstream() -> Iterator[tuple[Upstream, RawServer]]:
    upstream = Upstream()
    with raw_server(upstream.answer) as server:
        yield upstream, server


class Clients:
    """Clients that each send a request and read its whole answer, in threads."""

    def __init__(self, backend: BackendProcess) -> None:
        self._backend = backend
        self._pool = ThreadPoolExecutor(32)
        self.answers: dict[str, Future[requests.Response]] = {}

    def send(self, name: str, path: str, body: object) -> None:
        self.answers[name] = self._pool.submit(self._backend.post, path, body, timeout=60)

    def of(self, names: dict[str, Any]) -> dict[str, requests.Response]:
        return {name: self.answers[name].result(60) for name in names}


def _stop(backend: BackendProcess, how: signal.Signals = signal.SIGTERM) -> int:
    assert backend.process is not None
    backend.process.send_signal(how)
    return backend.process.wait(LIMIT + 5)  # an allowance for a busy machine


def _blocks(answer: requests.Response) -> list[str]:
    return [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]


def _last(answer: requests.Response) -> dict[str, Any]:
    """Return the error in the last event, after checking that it is the only terminal one."""
    blocks = _blocks(answer)
    names = [block.split("\n")[0].removeprefix("event: ") for block in blocks]
    if names[-1].startswith("data: "):  # OpenAI's form
        assert "[DONE]" not in answer.text
        assert answer.text.count('"error"') == 1
        found: dict[str, Any] = json.loads(names[-1].removeprefix("data: "))["error"]
        return {**found, "error_type": found["code"]}
    assert [name for name in names if name in {"done", "error", "cancelled"}] == ["error"]
    assert names[-1] == "error"
    error: dict[str, Any] = json.loads(blocks[-1].split("data: ", 1)[1])
    return error


def _begun_streams(backend: BackendProcess) -> int:
    """Return how many streams have their first event."""
    return len(re.findall("POST /(?:api/chat|v1)\\S* 200", backend.log))


def _outcomes(data_dir: Path) -> dict[str, int]:
    """Return how many calls the usage has for each outcome."""
    engine = create_engine(database_url(data_dir) or f"sqlite:///{data_dir / 'backend.db'}")
    with engine.connect() as connection:
        rows = connection.execute(
            text("select outcome, count(*) as number from calls group by outcome")
        ).all()
    engine.dispose()
    return {row.outcome: row.number for row in rows}


@pytest.mark.parametrize("server", [BackendProcess, GunicornProcess])
def test_every_request_under_way_is_told_that_the_server_stops(
    tmp_path: Path, server: Callable[..., BackendProcess]
) -> None:
    data = tmp_path / "data"
    with _upstream() as (upstream, raw), server(data, raw.url, BACKEND_ENABLE="ollama") as backend:
        conversation = backend.post("/api/conversations", {}).json()["id"]
        clients = Clients(backend)
        said = {"conversation": ("/api/chat", {**CHAT, **STREAM, "conversation_id": conversation})}
        streams = {**STREAMS, **said}
        for name, (path, body) in {**streams, **WHOLE}.items():
            clients.send(name, path, body)
        for _ in range(len(streams) + len(WHOLE) + 2):  # each comparison asks twice
            assert upstream.begun.acquire(timeout=30), backend.log
        wait_until(lambda: _begun_streams(backend) == len(streams), 60)

        code = _stop(backend)
        answers = clients.of(streams)
        whole = clients.of(WHOLE)
    with BackendProcess(data, raw.url, BACKEND_ENABLE="ollama") as next_one:
        kept = next_one.get(f"/api/conversations/{conversation}").json()["messages"]
    usage = _outcomes(data)

    assert code == 0, backend.log
    assert {name: _last(answer)["error_type"] for name, answer in answers.items()} == dict.fromkeys(
        streams, "server_stopping"
    )
    assert {name: answer.status_code for name, answer in whole.items()} == dict.fromkeys(WHOLE, 503)
    assert all("server_stopping" in answer.text for answer in whole.values())
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in whole.values())
    assert [(turn["role"], turn["status"], turn["content"]) for turn in kept] == [
        ("user", "complete", "Hi"),
        ("assistant", "cut", "Hel"),
    ]
    assert usage == {"server_stopping": len(streams) + len(WHOLE) + 2}
    wait_until(lambda: len(upstream.hung_up) == len(streams) + len(WHOLE) + 2, 60)


@pytest.mark.parametrize(
    ("server", "signals"),
    [
        (BackendProcess, [signal.SIGINT]),
        (BackendProcess, [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]),
        (GunicornProcess, [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]),
    ],
)
def test_other_and_repeated_signals_stop_as_well(
    tmp_path: Path, server: Callable[..., BackendProcess], signals: list[signal.Signals]
) -> None:
    data = tmp_path / "data"
    with _upstream() as (_, raw), server(data, raw.url, BACKEND_ENABLE="ollama") as backend:
        clients = Clients(backend)
        clients.send("chat", *STREAMS["chat"])
        wait_until(lambda: _begun_streams(backend) == 1, 60)
        assert backend.process is not None
        for how in signals[:-1]:
            backend.process.send_signal(how)

        code = _stop(backend, signals[-1])
        answer = clients.answers["chat"].result(60)

    assert code == 0, backend.log
    assert _last(answer)["error_type"] == "server_stopping"


@pytest.mark.parametrize("server", [BackendProcess, GunicornProcess])
def test_client_that_reads_nothing_does_not_hold_up_the_end(
    tmp_path: Path, server: Callable[..., BackendProcess]
) -> None:
    is_full = threading.Event()

    def flood(connection: Connection) -> None:
        if connection.path != "/v1/chat/completions":
            return
        connection.send_head()
        connection.set_timeout(1)
        try:
            while True:
                connection.send_chunk(DELTA * 1000)
        except TimeoutError:  # all buffers between this server and the client are full
            is_full.set()
            connection.wait_for_close()

    with raw_server(flood) as raw, server(tmp_path / "data", raw.url, BACKEND_ENABLE="ollama") as backend:
        host, port = backend.url.removeprefix("http://").split(":")
        body = json.dumps({**OPENAI, **STREAM})
        with socket.create_connection((host, int(port))) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            assert is_full.wait(60)

            code = _stop(backend)

    assert code == 0, backend.log


@pytest.mark.skipif(WANTED, reason="locks the file of SQLite")
def test_request_that_waits_for_the_database_does_not_hold_up_the_end(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with (
        _upstream() as (_, raw),
        BackendProcess(data, raw.url, BACKEND_ENABLE="ollama") as backend,
        closing(sqlite3.connect(data / "backend.db", isolation_level=None)) as other,
        ThreadPoolExecutor() as pool,
    ):
        other.execute("begin immediate")
        waiting = pool.submit(backend.post, "/api/conversations", {}, timeout=60)
        _wait_for_request(backend)

        began = time.monotonic()
        code = _stop(backend)
        took = time.monotonic() - began
        waiting.exception(60)

    assert code == 0, backend.log
    assert took < LIMIT


@pytest.mark.skipif(WANTED, reason="locks the file of SQLite")
@pytest.mark.parametrize("server", [BackendProcess, GunicornProcess])
def test_answers_in_conversations_end_and_are_kept_while_the_database_is_locked(
    tmp_path: Path, server: Callable[..., BackendProcess]
) -> None:
    data = tmp_path / "data"
    bodies = {"stream": {**CHAT, **STREAM}, "whole": CHAT}
    with (
        _upstream() as (upstream, raw),
        server(data, raw.url, BACKEND_ENABLE="ollama") as backend,
        closing(sqlite3.connect(data / "backend.db", isolation_level=None)) as other,
    ):
        ids = {name: backend.post("/api/conversations", {}).json()["id"] for name in bodies}
        clients = Clients(backend)
        for name, body in bodies.items():
            clients.send(name, "/api/chat", {**body, "conversation_id": ids[name]})
        for _ in bodies:
            assert upstream.begun.acquire(timeout=30), backend.log
        wait_until(lambda: _begun_streams(backend) == 1, 60)
        other.execute("begin exclusive")

        began = time.monotonic()
        code = _stop(backend)
        took = time.monotonic() - began
        stream, whole = clients.of(bodies).values()
    with BackendProcess(data, raw.url, BACKEND_ENABLE="ollama") as next_one:
        wait_until(lambda: not list((data / "answers").glob("*.json")), 60)
        kept = {
            name: next_one.get(f"/api/conversations/{id}").json()["messages"][-1] for name, id in ids.items()
        }
        next_one.post("/api/conversations", {}).raise_for_status()

    assert code == 0, backend.log
    assert took < LIMIT
    assert _last(stream)["error_type"] == "server_stopping"
    assert (whole.status_code, whole.json()["error_type"]) == (503, "server_stopping")
    assert (kept["stream"]["status"], kept["stream"]["content"]) == ("cut", "Hel")
    assert (kept["whole"]["status"], kept["whole"]["content"]) == ("failed", "")
    assert {answer["error"]["error_type"] for answer in kept.values()} == {"server_stopping"}


def _wait_for_request(backend: BackendProcess) -> None:
    """Wait until the request that another thread sends has reached the server."""
    port = int(backend.url.rpartition(":")[2])
    wait_until(lambda: _connections(port) > 0, 60)
    backend.get("/api/health")  # is accepted after the other one


def _connections(port: int) -> int:
    """Return the number of connections that the server at *port* has accepted."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


# -- the own Ollama

OLLAMA = """#!{python}
import http.server, os, signal, sys, time

if {deaf}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open({pid_file!r}, "w") as file:
    file.write(str(os.getpid()))
if {silent}:
    time.sleep(600)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"version": "0.30.0", "models": []}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write({delta!r})
        self.wfile.flush()
        time.sleep(600)

host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""


class OwnOllama:
    """A program `ollama` that the backend starts.

    :param deaf: whether it ignores SIGTERM
    :param silent: whether it never listens
    """

    def __init__(self, folder: Path, *, deaf: bool = False, silent: bool = False) -> None:
        self._pid_file = folder / "ollama.pid"
        self.url = f"http://127.0.0.1:{free_port()}"
        program = folder / "bin" / "ollama"
        program.parent.mkdir()
        program.write_text(
            OLLAMA.format(
                python=sys.executable, deaf=deaf, silent=silent, pid_file=str(self._pid_file), delta=DELTA
            )
        )
        program.chmod(0o755)
        self.path = f"{program.parent}:/usr/bin:/bin"

    @property
    def is_running(self) -> bool:
        if not self._pid_file.exists() or not (pid := self._pid_file.read_text()):
            return False
        return subprocess.run(["kill", "-0", pid], capture_output=True, check=False).returncode == 0


def test_new_requests_are_refused_until_the_own_ollama_has_ended(tmp_path: Path) -> None:
    own = OwnOllama(tmp_path, deaf=True)
    flags = ("--ollama", "auto", "--enable", "ollama")
    with (
        BackendProcess(tmp_path / "data", own.url, flags, PATH=own.path) as backend,
        requests.Session() as kept,
    ):
        kept.get(f"{backend.url}/api/health", timeout=10)
        clients = Clients(backend)
        clients.send("chat", *STREAMS["chat"])
        wait_until(lambda: _begun_streams(backend) == 1, 60)
        assert backend.process is not None
        backend.process.terminate()

        ended = clients.answers["chat"].result(60)
        was_running = own.is_running
        on_kept = kept.get(f"{backend.url}/api/health", timeout=10)
        refused = backend.post("/v1/chat/completions", OPENAI, timeout=10)
        code = backend.process.wait(LIMIT + 5)

    assert _last(ended)["error_type"] == "server_stopping"
    assert was_running
    for answer in (on_kept, refused):
        assert answer.status_code == 503
        assert answer.headers["Connection"] == "close"
        assert int(answer.headers["Retry-After"]) > 0
    assert on_kept.json()["error_type"] == "server_stopping"
    assert refused.json()["error"]["code"] == "server_stopping"
    assert code == 0
    assert not own.is_running


@pytest.mark.parametrize("deaf", [False, True])
def test_stop_while_the_own_ollama_starts_leaves_nothing_behind(tmp_path: Path, deaf: bool) -> None:
    own = OwnOllama(tmp_path, deaf=deaf, silent=True)
    port = free_port()
    data = tmp_path / "data"
    data.mkdir()
    (data / "providers.json").write_text(json.dumps({"ollama": {"base_url": f"{own.url}/v1"}}))
    environ = {**os.environ, "BACKEND_DATA_DIR": str(data), "PATH": own.path}
    command = [
        sys.executable,
        "backend_server.py",
        "--port",
        str(port),
        "--ollama",
        "auto",
        "--enable",
        "ollama",
    ]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: own.is_running, 60)
            answer = ThreadPoolExecutor().submit(
                requests.get, f"http://127.0.0.1:{port}/api/providers/ollama/models", timeout=60
            )
            wait_until(lambda: _connections(port) > 0, 60)

            process.terminate()
            code = process.wait(LIMIT + 5)
            refused = answer.result(60)
        finally:
            process.kill()

    assert code == 0
    assert refused.status_code == 503
    assert refused.json()["error_type"] == "server_stopping"
    assert not own.is_running

"""What a kill leaves in the data folder: nothing half done, and nothing lost."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.engine.process import wait_until
from tests.live.process import BackendProcess
from tests.postgres import WANTED
from tests.wire import recording

pytestmark = [pytest.mark.live, pytest.mark.skipif(WANTED, reason="looks into SQLite's file")]

LONG = 60  # seconds
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


def _backend(data_dir: Path, upstream: HTTPServer, **env: str) -> BackendProcess:
    return BackendProcess(data_dir, upstream.url_for("").rstrip("/"), ("--enable", "ollama"), **env)


def _kill(backend: BackendProcess) -> None:
    assert backend.process is not None
    backend.process.kill()
    backend.process.wait()


def _count(data_dir: Path, rows: str) -> int:
    with closing(sqlite3.connect(data_dir / "backend.db")) as database:
        return int(database.execute(f"select count(*) from {rows}").fetchone()[0])


def test_killed_import_leaves_nothing(tmp_path: Path, httpserver: HTTPServer) -> None:
    data_dir = tmp_path / "data"
    messages = [{"role": "user", "content": "word " * 50}] * 20
    body = [{"version": 1, "title": str(number), "messages": messages} for number in range(1500)]

    with _backend(data_dir, httpserver) as backend:

        def post() -> None:
            with suppress(requests.ConnectionError):
                backend.post("/api/conversations/import", body)

        sender = threading.Thread(target=post)
        sender.start()
        wait_until(lambda: _count(data_dir, "conversations where import_id is not null"), LONG)
        _kill(backend)
        sender.join()
    left = _count(data_dir, "conversations")
    with closing(sqlite3.connect(data_dir / "backend.db")) as database:
        database.execute("update conversation_imports set heartbeat_at = '2020-01-01 00:00:00.000000'")
        database.commit()

    with _backend(data_dir, httpserver) as backend:
        listed = backend.get("/api/conversations").json()
        wait_until(lambda: _count(data_dir, "conversations") == 0, LONG)

    assert 0 < left < 1500
    assert listed == {"conversations": [], "total": 0}
    assert _count(data_dir, "conversation_messages") == 0


def test_answer_for_a_locked_database_survives_a_kill(tmp_path: Path, httpserver: HTTPServer) -> None:
    data_dir = tmp_path / "data"
    recorded = recording("v1_chat_nostream")
    locker: list[sqlite3.Connection] = []

    def answer(_: Request) -> Response:
        locker.append(sqlite3.connect(data_dir / "backend.db", check_same_thread=False))
        locker[0].execute("begin immediate")
        return Response(recorded.body, recorded.status, content_type=recorded.content_type)

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    with _backend(data_dir, httpserver) as backend:
        id = backend.post("/api/conversations", {"model": "x"}).json()["id"]
        given = backend.post("/api/chat", {"message": "One", "conversation_id": id}).json()
        _kill(backend)
    locker[0].close()

    def last(backend: BackendProcess) -> Any:
        return backend.get(f"/api/conversations/{id}").json()["messages"][-1]

    with _backend(data_dir, httpserver) as backend:
        wait_until(lambda: last(backend)["status"] == "complete", LONG)
        assert last(backend)["content"] == given["response"]
    assert "will be saved" in given["notice"]
    assert list((data_dir / "answers").iterdir()) == []


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")
def test_conversation_is_free_after_a_kill_and_a_clock_that_was_set_back(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    data_dir = tmp_path / "data"
    recorded = recording("v1_chat_nostream")
    asked, is_over = threading.Event(), threading.Event()

    def answer(_: Request) -> Response:
        if not asked.is_set():
            asked.set()
            is_over.wait(LONG)
        return Response(recorded.body, recorded.status, content_type=recorded.content_type)

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    ahead = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+2h", "DONT_FAKE_MONOTONIC": "1"}
    with _backend(data_dir, httpserver, **ahead) as backend:
        id = backend.post("/api/conversations", {"model": "x"}).json()["id"]

        def ask() -> None:
            with suppress(requests.ConnectionError):
                backend.post("/api/chat", {"message": "One", "conversation_id": id})

        client = threading.Thread(target=ask)
        client.start()
        assert asked.wait(LONG)
        _kill(backend)
        client.join()
        is_over.set()

    with _backend(data_dir, httpserver) as backend:
        messages = backend.get(f"/api/conversations/{id}").json()["messages"]
        again = backend.post("/api/chat", {"message": "Two", "conversation_id": id})

    assert [message["status"] for message in messages] == ["complete", "cut"]
    assert again.status_code == 200

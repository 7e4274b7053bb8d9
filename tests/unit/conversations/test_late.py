"""Answers that the database cannot take when they are complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from sqlalchemy import text
from werkzeug import Request, Response

from app.config import Config
from app.services.conversations.late import LateAnswers
from app.services.conversations.store import ConversationStore
from app.storage import database as storage
from app.storage.database import Database
from tests.engine.process import wait_until
from tests.wire import recording

COMPLETIONS = "/v1/chat/completions"
HELLO = "Awesome, welcome to the city of Elysium!"
Lock = Callable[[], None]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 1)


@pytest.fixture
def locks(app: Flask) -> Iterator[ExitStack]:
    """Closing it lets the database go."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def answering(app: Flask, ollama: HTTPServer, locks: ExitStack) -> HTTPServer:
    """A provider in whose answer another program locks the database."""
    database: Database = app.extensions["services"].database
    recorded = recording("v1_chat_nostream")

    def answer(_: Request) -> Response:
        connection = locks.enter_context(database.engine.connect())
        whole = "lock table conversations in exclusive mode"
        connection.execute(text("begin immediate" if database.has_one_writer else whole))
        return Response(recorded.body, recorded.status, content_type=recorded.content_type)

    ollama.expect_oneshot_request(COMPLETIONS).respond_with_handler(answer)
    return ollama


def _ask(client: FlaskClient) -> tuple[str, Any]:
    id = client.post("/api/conversations", json={"model": "x"}).json["id"]
    return id, client.post("/api/chat", json={"message": "One", "conversation_id": id})


def _last(client: FlaskClient, id: str) -> tuple[str, str]:
    message = client.get(f"/api/conversations/{id}").json["messages"][-1]
    return message["status"], message["content"]


def _files(config: Config) -> list[Path]:
    return list((config.data_dir / "answers").glob("*"))


def test_answer_for_a_locked_database_is_given_and_saved_later(
    client: FlaskClient, config: Config, answering: HTTPServer, locks: ExitStack
) -> None:
    id, response = _ask(client)
    modes, before = [path.stat().st_mode & 0o777 for path in _files(config)], _last(client, id)
    locks.close()

    assert (response.status_code, response.json["response"]) == (200, HELLO)
    assert "will be saved" in response.json["notice"]
    assert "is lost" not in response.json["notice"]
    assert modes == [0o600]
    assert before == ("pending", "")
    wait_until(lambda: _last(client, id) == ("complete", HELLO))
    wait_until(lambda: _files(config) == [])


def test_next_question_comes_after_the_late_answer(
    app: Flask, client: FlaskClient, answering: HTTPServer, locks: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LateAnswers, "save", lambda _: None)  # the next question comes before the next try
    id, _ = _ask(client)
    locks.close()
    recorded = recording("v1_chat_nostream")
    answering.expect_request(COMPLETIONS).respond_with_data(recorded.body, content_type=recorded.content_type)

    again = client.post("/api/chat", json={"message": "Two", "conversation_id": id})

    assert again.status_code == 200
    sent = json.loads(answering.log[-1][0].get_data())["messages"]
    assert [message["content"] for message in sent] == ["One", HELLO, "Two"]


def test_question_is_refused_while_the_database_is_locked(
    client: FlaskClient, answering: HTTPServer, locks: ExitStack
) -> None:
    id, _ = _ask(client)

    again = client.post("/api/chat", json={"message": "Two", "conversation_id": id})

    assert (again.status_code, again.json["error_type"]) == (503, "storage_failed")
    assert [request.path for request, _ in answering.log].count(COMPLETIONS) == 1


def test_answer_without_a_file_is_saved_from_memory(
    client: FlaskClient, config: Config, answering: HTTPServer, locks: ExitStack
) -> None:
    (config.data_dir / "answers").write_text("no folder")

    id, response = _ask(client)
    locks.close()

    assert "is lost" in response.json["notice"]
    wait_until(lambda: _last(client, id) == ("complete", HELLO))


def test_answers_that_a_former_process_has_left_are_saved(database: Database, tmp_path: Path) -> None:
    store = ConversationStore(database)
    id = store.create()["id"]
    ticket = store.begin(id, [{"role": "user", "content": "Why?"}], "ollama", "a:1")
    values = {"status": "complete", "content": "Half \ud83d", "provider": "ollama", "model": "a:1"}
    former = LateAnswers(store, tmp_path / "answers")
    former.close()
    former.keep(ticket, values)

    LateAnswers(store, tmp_path / "answers").save()

    assert [turn["content"] for turn in store.turns(id)] == ["Why?", "Half ?"]
    assert list((tmp_path / "answers").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'"ticket"', b"{}", b'{"ticket": {}, "answer": {}}', b"\xff", b"[" * 100_000]
)
def test_file_that_holds_no_answer_is_set_aside(database: Database, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    late = LateAnswers(ConversationStore(database), tmp_path)

    late.save()
    late.save()

    (left,) = tmp_path.glob("x.json*")
    assert left.name.startswith("x.json.damaged-")
    assert left.read_bytes() == content

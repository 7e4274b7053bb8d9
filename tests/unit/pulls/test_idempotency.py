"""Requests that are sent again, also at the same time: they are done once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text, update

from app.errors import DiskFull, IdempotencyKeyReused
from app.services.pulls.idempotency import KEPT_FOR, LEASE, IdempotencyService
from app.storage.database import Database, IdempotencyKey, utc_now
from tests.conftest import events
from tests.raw_server import Connection, RawServer, raw_server

API = "/api/providers/ollama"
NAME = "127.0.0.1:1/library/a:latest"
KEY = {"Idempotency-Key": "one"}


@pytest.fixture
def once(database: Database) -> IdempotencyService:
    return IdempotencyService(database)


def _age(database: Database, age: timedelta) -> None:
    with database.session() as session:
        session.execute(update(IdempotencyKey).values(created_at=utc_now() - age))


def _keys(database: Database) -> list[str]:
    with database.session() as session:
        return [*session.scalars(select(IdempotencyKey.key))]


def test_second_request_with_a_key_gets_the_first_ones_answer(once: IdempotencyService) -> None:
    first = once.once("pull", "k", {"a": 1, "b": 2}, lambda: {"n": 1})
    again = once.once("pull", "k", {"b": 2, "a": 1}, lambda: {"n": 2})
    elsewhere = once.once("chat", "k", {"a": 1}, lambda: {"n": 3})
    without = once.once("pull", None, {"a": 1, "b": 2}, lambda: {"n": 4})

    assert [each["n"] for each in (first, again, elsewhere, without)] == [1, 1, 3, 4]


def test_key_of_another_request_is_refused(once: IdempotencyService) -> None:
    once.once("pull", "k", {"a": 1}, dict)

    with pytest.raises(IdempotencyKeyReused):
        once.once("pull", "k", {"a": 2}, dict)


def test_request_that_failed_does_not_use_its_key_up(once: IdempotencyService, database: Database) -> None:
    def fail() -> dict[str, Any]:
        raise DiskFull("Full.")

    with pytest.raises(DiskFull):
        once.once("pull", "k", {}, fail)

    assert _keys(database) == []
    assert once.once("pull", "k", {"other": 1}, lambda: {"n": 1}) == {"n": 1}


def test_equal_requests_at_once_are_done_once(database: Database) -> None:
    """Each with a service of its own, as other processes have."""
    together, done = threading.Barrier(6), []

    def ask(number: int) -> int:
        def do() -> dict[str, Any]:
            done.append(number)
            return {"n": number}

        together.wait()
        n: int = IdempotencyService(database).once("pull", "k", {}, do)["n"]
        return n

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(ask, range(6)))

    assert len(done) == 1
    assert answers == set(done)


def test_request_waits_for_the_one_that_is_being_done(once: IdempotencyService) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> dict[str, Any]:
        begun.set()
        may_end.wait(30)
        return {"n": 1}

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(once.once, "pull", "k", {}, slow)
        begun.wait(30)
        second = pool.submit(once.once, "pull", "k", {}, lambda: {"n": 2})
        may_end.set()

        assert first.result(30) == second.result(30) == {"n": 1}


def test_request_whose_process_died_is_done_by_the_next(once: IdempotencyService, database: Database) -> None:
    with database.session() as session:
        session.add(IdempotencyKey(key="pull:k", fingerprint="of another"))
    _age(database, LEASE + timedelta(seconds=1))

    assert once.once("pull", "k", {}, lambda: {"n": 1}) == {"n": 1}


def _rename_keys(database: Database) -> None:
    with database.session() as session:
        session.execute(text("ALTER TABLE idempotency_keys RENAME TO away"))


def test_request_that_was_done_is_a_success_though_its_key_cannot_be_kept(
    once: IdempotencyService, database: Database
) -> None:
    def do() -> dict[str, str]:
        _rename_keys(database)
        return {"id": "1"}

    assert once.once("pull", "k", {}, do) == {"id": "1"}


def test_request_that_failed_says_why_though_its_key_cannot_be_released(
    once: IdempotencyService, database: Database
) -> None:
    def do() -> dict[str, str]:
        _rename_keys(database)
        raise DiskFull("It does not fit.")

    with pytest.raises(DiskFull):
        once.once("pull", "k", {}, do)


def test_keys_are_forgotten_after_a_day(once: IdempotencyService, database: Database) -> None:
    once.once("pull", "k", {}, lambda: {"n": 1})
    once.prune()
    kept = _keys(database)
    _age(database, KEPT_FOR + timedelta(seconds=1))

    anew = once.once("pull", "k", {"other": 1}, lambda: {"n": 2})
    _age(database, KEPT_FOR + timedelta(seconds=1))
    once.prune()

    assert kept == ["pull:k"]
    assert anew == {"n": 2}
    assert _keys(database) == []


@pytest.fixture
def upstream(point: Any) -> Iterator[RawServer]:
    """An Ollama that pulls every model but those called `bad`."""

    def answer(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        is_bad = b"bad" in connection.request
        line = b'{"error":"pull model manifest: file does not exist"}' if is_bad else b'{"status":"success"}'
        connection.send_chunk(line + b"\n")
        connection.end()

    with raw_server(answer) as server:
        point(f"{server.url}/v1")
        yield server


def _asked(server: RawServer) -> int:
    return sum(b"/api/pull" in request for request in server.requests)


def test_pull_that_is_sent_again_is_the_same_one(client: FlaskClient, upstream: RawServer) -> None:
    body = {"model": NAME}

    first = client.post(f"{API}/pull", json=body, headers=KEY)
    again = client.post(f"{API}/pull", json={**body, "force": False}, headers=KEY)
    one_pull: Any = client.get(f"{API}/pulls").json
    other = client.post(f"{API}/pull", json={**body, "background": True}, headers=KEY)
    anew = client.post(f"{API}/pull", json=body, headers={"Idempotency-Key": "two"})

    assert first.status_code == again.status_code == anew.status_code == 200
    assert again.json == first.json
    assert one_pull["total"] == 1
    assert other.status_code == 422
    assert other.json["error_type"] == "idempotency_key_reused"  # type: ignore[index]
    assert _asked(upstream) == 2


@pytest.mark.parametrize("mode", ["background", "stream"])
def test_pull_that_is_sent_again_answers_in_its_own_way(
    client: FlaskClient, upstream: RawServer, mode: str
) -> None:
    answers = [client.post(f"{API}/pull", json={"model": NAME, mode: True}, headers=KEY) for _ in range(2)]

    if mode == "background":
        ids = {answer.json["id"] for answer in answers}  # type: ignore[index]
        assert len(ids) == 1
        assert [answer.status_code for answer in answers] == [202, 202]
    else:
        first, again = [events(answer) for answer in answers]
        assert first == again
        assert first[-1][0] == "done"


def test_pull_that_failed_is_answered_again_as_it_failed(client: FlaskClient, upstream: RawServer) -> None:
    body = {"model": "127.0.0.1:1/library/bad"}

    answers: list[Any] = [client.post(f"{API}/pull", json=body, headers=KEY).json for _ in range(2)]

    assert [answer["error_type"] for answer in answers] == ["pull_failed", "pull_failed"]
    assert answers[0]["error"] == answers[1]["error"]
    assert _asked(upstream) == 1


def test_equal_pulls_at_once_are_one(client: FlaskClient, upstream: RawServer) -> None:
    app, together = client.application, threading.Barrier(2)

    def ask(_: int) -> str:
        together.wait()
        body = {"model": "127.0.0.1:1/library/bad", "background": True}
        id: str = app.test_client().post(f"{API}/pull", json=body, headers=KEY).json["id"]  # type: ignore[index]
        return id

    with ThreadPoolExecutor(2) as pool:
        ids = set(pool.map(ask, range(2)))

    assert len(ids) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x01b", "a\tb", "a\x7fb", "a\x85b"])
def test_key_of_a_bad_shape_is_400(client: FlaskClient, key: str) -> None:
    response = client.post(f"{API}/pull", json={"model": NAME}, headers={"Idempotency-Key": key})

    assert response.status_code == 400
    assert "Idempotency-Key" in response.json["error"]  # type: ignore[index]


def test_key_is_a_parameter_in_the_docs(client: FlaskClient) -> None:
    spec: Any = client.get("/api/openapi.json").json

    parameters = spec["paths"][f"{API}/pull"]["post"]["parameters"]
    found = [each for each in parameters if each["in"] == "header"]
    assert [(each["name"], each["required"]) for each in found] == [("Idempotency-Key", False)]

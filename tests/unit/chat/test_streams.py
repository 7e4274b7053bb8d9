"""Streams that are slow, stopped, or handed on to a fallback; circuits."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from app.errors import ChatNotRunning, UpstreamTimeout, UpstreamUnavailable
from app.services.chat import exchange, stops
from app.services.chat.stops import Stops
from app.services.providers import circuits as circuit
from app.services.providers.circuits import Circuits
from app.services.providers.store import Provider
from app.storage.database import Database
from tests.conftest import events, replay
from tests.postgres import database_url
from tests.raw_server import Connection, raw_server
from tests.wire import recording

CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"
Point = Callable[..., None]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce a stream at the first silent half second."""
    monkeypatch.setattr(exchange, "ANNOUNCE_AFTER", 0.0)


def _silence_then(body: bytes, go_on: threading.Event) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        if connection.path == COMPLETIONS:
            go_on.wait(10)
            connection.send_head()
            connection.send_chunk(body)
            connection.end()

    return script


@pytest.mark.usefixtures("at_once")
def test_stream_of_a_model_that_is_being_loaded_says_so(client: FlaskClient, point: Point) -> None:
    go_on = threading.Event()
    with raw_server(_silence_then(recording("v1_chat_stream").body, go_on)) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}, buffered=False)
        first = next(iter(response.response))
        go_on.set()
        rest = b"".join(response.response)

    assert b"event: start" in first
    assert b"event: loading" in first
    assert b"event: loading" not in rest
    assert rest.count(b"event: start") == 0
    assert rest.count(b"event: done") == 1


@pytest.mark.usefixtures("at_once")
def test_stream_that_was_announced_and_fails_ends_with_one_error(client: FlaskClient, point: Point) -> None:
    client.put("/api/settings", json={"timeouts": {"first_byte": 1.2}})
    with raw_server(Connection.wait_for_close) as server:
        point(f"{server.url}/v1")

        got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))

    assert [name for name, _ in got] == ["start", "loading", "error"]
    assert got[-1][1]["error_type"] == "upstream_timeout"


@pytest.mark.usefixtures("at_once")
def test_fallback_of_an_announced_stream_starts_anew(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    client.put("/api/settings", json={"timeouts": {"first_byte": 1.2}})
    point(httpserver.url_for("/v1"), "openai")
    replay(httpserver, COMPLETIONS, "v1_chat_stream")
    with raw_server(Connection.wait_for_close) as server:
        point(f"{server.url}/v1")
        body = {"message": "Hi", "model": "x", "stream": True, "fallback_provider": "openai"}

        got = events(client.post(CHAT, json=body))

    assert [(name, data["provider"]) for name, data in got if name == "start"] == [
        ("start", "ollama"),
        ("start", "openai"),
    ]
    assert [name for name, _ in got].count("done") == 1
    assert got[-1][1]["first_error"]["error_type"] == "upstream_timeout"


def test_fallback_of_the_request_goes_before_the_settings(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    with raw_server(lambda _: None) as server:
        address = server.url
    point(f"{address}/v1")
    point(httpserver.url_for("/v1"), "groq", model="llama")
    replay(httpserver, COMPLETIONS, "v1_chat_nostream")
    body = {"message": "Hi", "model": "x", "keep_alive": "5m", "fallback_provider": "groq"}

    answer = client.post(CHAT, json=body).json
    client.put("/api/settings", json={"fallback_provider": "groq"})
    without = client.post(CHAT, json={**body, "fallback_provider": None})

    assert answer is not None
    assert (answer["provider"], answer["fallback_used"]) == ("groq", True)
    assert "keep_alive" in answer["notice"]
    assert without.status_code == 503


@pytest.mark.parametrize(("provider", "status"), [("nope", 404), ("openai", 400)])
def test_fallback_that_cannot_be_used_is_refused_at_once(
    client: FlaskClient, ollama: HTTPServer, provider: str, status: int
) -> None:
    response = client.post(CHAT, json={"message": "Hi", "fallback_provider": provider})

    assert response.status_code == status
    assert not [request for request, _ in ollama.log if request.path == COMPLETIONS]


# -- stopping


def _delta_then_wait(started: threading.Event, hung_up: threading.Event) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n')
        started.set()
        connection.wait_for_close()
        hung_up.set()

    return script


def _chat_in_thread(app: Flask, body: dict[str, Any], request_id: str) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def chat() -> None:
        answers.append(
            app.test_client().post(CHAT, json=body, headers={"X-Request-ID": request_id}, buffered=True)
        )

    thread = threading.Thread(target=chat)
    thread.start()
    return thread, answers


def test_provider_is_hung_up_on_before_the_client_takes_the_last_event(
    app: Flask, client: FlaskClient, point: Point
) -> None:
    started, hung_up = threading.Event(), threading.Event()
    with raw_server(_delta_then_wait(started, hung_up)) as server:
        point(f"{server.url}/v1")
        chats = app.extensions["services"].chat
        with app.test_request_context():
            answer = chats.answer({"message": "Hi", "model": "x", "stream": True}, "my-chat")
            next(batch for batch in answer if batch)
            chats.stop("my-chat")

            last = next(batch for batch in answer if batch)

            assert hung_up.wait(5)  # no further event was asked for
            answer.close()

    assert [name for name, _ in last] == ["error"]


def test_provider_of_a_broken_stream_is_hung_up_on_before_the_client_takes_the_last_event(
    app: Flask, point: Point
) -> None:
    hung_up = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\ndata: nonsense\n\n')
        connection.wait_for_close()
        hung_up.set()

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        with app.test_request_context():
            answer = app.extensions["services"].chat.answer(
                {"message": "Hi", "model": "x", "stream": True}, "my-chat"
            )
            last = next(batch for batch in answer if batch)

            assert hung_up.wait(5)  # no further event was asked for
            answer.close()

    assert [name for name, _ in last] == ["start", "delta", "error"]


def test_answer_that_comes_in_one_read_has_a_first_token(client: FlaskClient, point: Point) -> None:
    events_of_answer = [
        {"choices": [{"delta": {"content": "Hello"}}]},
        {"choices": [{"delta": {}, "finish_reason": "length"}]},
    ]
    body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events_of_answer)

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(body + b"data: [DONE]\n\n")
        connection.end()

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        chat = {"message": "Hi", "model": "x", "stream": True}

        got = dict(events(client.post(CHAT, json=chat)))

    assert got["start"].keys() == {"request_id", "provider", "model"}
    assert got["done"]["time_to_first_token"] >= 0


@pytest.mark.parametrize("stream", [True, False])
def test_answer_is_stopped_by_its_request_id(
    app: Flask, client: FlaskClient, point: Point, stream: bool
) -> None:
    started, hung_up = threading.Event(), threading.Event()
    with raw_server(_delta_then_wait(started, hung_up)) as server:
        point(f"{server.url}/v1")
        body = {"message": "Hi", "model": "x", "stream": stream}
        thread, answers = _chat_in_thread(app, body, "my-chat")
        assert started.wait(5)

        stopped = client.delete(f"{CHAT}/my-chat")
        thread.join(5)
        assert hung_up.wait(5)

    assert stopped.status_code == 204
    if stream:
        got = events(answers[0])
        assert [name for name, _ in got] == ["start", "delta", "error"]
        assert got[-1][1]["error_type"] == "chat_stopped"
        assert got[-1][1]["details"] == {"response": "Hel"}
    else:
        assert (answers[0].status_code, answers[0].json["error_type"]) == (409, "chat_stopped")


@pytest.mark.parametrize("id", ["nobody", "x" * 100, "a%00b"])
def test_stopping_what_does_not_run_is_404(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, id: str
) -> None:
    monkeypatch.setattr(stops, "_PATIENCE", 0.0)

    response = client.delete(f"{CHAT}/{id}")

    assert response.status_code == 404
    assert response.json["error_type"] == "chat_not_running"  # type: ignore[index]


@pytest.fixture
def two_processes(tmp_path: Path) -> Iterator[tuple[Stops, Stops]]:
    """The stops of two processes on one database."""
    databases = [Database(database_url(tmp_path), tmp_path) for _ in range(2)]
    databases[0].migrate()
    one, other = (Stops(database) for database in databases)
    yield one, other
    one.close()
    other.close()
    for database in databases:
        database.close()


def test_answer_of_another_process_is_stopped(two_processes: tuple[Stops, Stops]) -> None:
    one, other = two_processes
    with one.running("a") as stop, one.running("b") as untouched:
        other.stop("a")

        assert stop.is_set()
        assert not untouched.is_set()
        other.stop("a")  # whoever asks for the same a moment later is not told that it did not run
    with pytest.raises(ChatNotRunning):
        other.stop("b")


def test_two_answers_with_one_id_are_both_stopped(two_processes: tuple[Stops, Stops]) -> None:
    one, _ = two_processes
    with one.running("a") as first:
        with one.running("a") as second:
            one.stop("a")
            assert second.is_set()
        assert first.is_set()


# -- circuits


PROVIDER = Provider(id="far", name="Far", base_url="http://far.test/v1")
DOWN = UpstreamUnavailable("Far is down.", hint="Look.", details={"reason": "dns"})


def test_circuit_opens_where_failing_takes_time_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(circuit.time, "monotonic", lambda: now[0])
    circuits = Circuits()

    circuits.failed(PROVIDER, DOWN, 0.01)
    circuits.check(PROVIDER)
    circuits.failed(PROVIDER, DOWN, 3.0)
    now[0] += 4
    with pytest.raises(UpstreamUnavailable) as caught:
        circuits.check(PROVIDER)
    now[0] += 6
    circuits.check(PROVIDER)

    assert "4 s ago" in caught.value.message
    assert caught.value.details == {"reason": "dns", "circuit": "open", "retry_after": 6}


def test_circuit_closes_when_the_provider_answers() -> None:
    circuits = Circuits()
    circuits.failed(PROVIDER, UpstreamTimeout("x", details={"reason": "connect_timeout"}), 3.0)

    circuits.worked(PROVIDER)

    circuits.check(PROVIDER)


def test_circuit_stays_closed_for_a_provider_that_is_only_slow() -> None:
    circuits = Circuits()

    circuits.failed(PROVIDER, UpstreamTimeout("slow"), 300.0)

    circuits.check(PROVIDER)


def test_chat_that_an_open_circuit_refuses_is_no_call(app: Flask, client: FlaskClient, point: Point) -> None:
    services = app.extensions["services"]
    services.circuits.failed(services.providers.get("ollama"), DOWN, 3.0)

    assert client.post(CHAT, json={"message": "Hi"}).status_code == 503
    services.usage.close()

    assert client.get("/api/usage").json["totals"]["calls"] == 0  # type: ignore[index]


def test_chat_with_a_provider_whose_circuit_is_open_is_answered_by_the_fallback(
    app: Flask, client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    replay(httpserver, COMPLETIONS, "v1_chat_nostream")
    services = app.extensions["services"]
    services.circuits.failed(services.providers.get("ollama"), DOWN, 3.0)

    alone = client.post(CHAT, json={"message": "Hi"})
    answer = client.post(CHAT, json={"message": "Hi", "fallback_provider": "openai"}).json

    assert alone.status_code == 503
    assert alone.json["details"]["circuit"] == "open"  # type: ignore[index]
    assert int(alone.headers["Retry-After"]) > 0
    assert answer is not None
    assert answer["first_error"]["details"]["circuit"] == "open"


def test_open_circuit_lets_one_try_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(circuit.time, "monotonic", lambda: now[0])
    circuits = Circuits()
    circuits.failed(PROVIDER, DOWN, 3.0)
    now[0] += 11

    circuits.check(PROVIDER)

    with pytest.raises(UpstreamUnavailable):
        circuits.check(PROVIDER)


def test_stop_during_the_fallback_is_told_as_a_stop(app: Flask, client: FlaskClient, point: Point) -> None:
    started, hung_up = threading.Event(), threading.Event()
    with raw_server(lambda _: None) as gone:
        address = gone.url
    with raw_server(_delta_then_wait(started, hung_up)) as server:
        point(f"{address}/v1")
        point(f"{server.url}/v1", "openai")
        body = {"message": "Hi", "fallback_provider": "openai"}
        thread, answers = _chat_in_thread(app, body, "fallen")
        assert started.wait(5)

        client.delete(f"{CHAT}/fallen")
        thread.join(5)

    assert answers[0].json["error_type"] == "chat_stopped"


def test_error_of_the_fallback_is_told_beside_the_first_one(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    with raw_server(lambda _: None) as gone:
        address = gone.url
    point(f"{address}/v1")
    point(httpserver.url_for("/v1"), "openai")
    httpserver.expect_request(COMPLETIONS).respond_with_json({}, status=401)

    error = client.post(CHAT, json={"message": "Hi", "fallback_provider": "openai"}).json

    assert error is not None
    assert error["error_type"] == "upstream_unavailable"
    assert error["details"]["fallback_error"]["error_type"] == "invalid_api_key"


def test_fallback_takes_over_after_a_chunk_without_a_word(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    replay(httpserver, COMPLETIONS, "v1_chat_stream")

    def only_a_role(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n')
        connection.end()

    with raw_server(only_a_role) as server:
        point(f"{server.url}/v1")
        body = {"message": "Hi", "stream": True, "fallback_provider": "openai"}

        got = events(client.post(CHAT, json=body))

    assert (got[-1][0], got[-1][1]["provider"]) == ("done", "openai")


def test_changed_settings_leave_running_streams_alone(client: FlaskClient, point: Point) -> None:
    go_on = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n')
        go_on.wait(10)
        connection.send_chunk(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n')
        connection.end()

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        running = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True})
        chunks = iter(running.response)
        first = next(chunks)
        point(f"{server.url}/v1", api_key="another-key-123")
        other = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True})
        next(iter(other.response))
        gc.collect()
        go_on.set()
        rest = b"".join(chunks)
        other.close()

    assert b"start" in first
    assert rest.count(b"event: done") == 1

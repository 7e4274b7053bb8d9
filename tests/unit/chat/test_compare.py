"""``POST /api/chat/compare``: several models side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.conftest import events
from tests.raw_server import Connection, raw_server
from tests.wire import recording

COMPARE = "/api/chat/compare"
COMPLETIONS = "/v1/chat/completions"
Point = Callable[..., None]


def _two(server: HTTPServer) -> None:
    """Let *server* know every model but `gone`."""

    def chat(request: Request) -> Response:
        body = request.get_json()
        name = "v1_chat_stream" if body.get("stream") else "v1_chat_nostream"
        found = recording("v1_chat_unknown" if body["model"].startswith("gone") else name)
        return Response(found.body, found.status, content_type=found.content_type)

    server.expect_request(COMPLETIONS).respond_with_handler(chat)


def test_compare_answers_in_order_and_one_failing_does_not_hurt(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    _two(ollama)
    targets = [
        {"model": "a:1b"},
        {"model": "gone:1b"},
        {"provider": "nope"},
        {"provider": "ollama", "model": "b"},
    ]

    response = client.post(COMPARE, json={"message": "Hi", "targets": targets})

    assert response.status_code == 200
    assert response.json is not None
    results = response.json["results"]
    assert [result["target"] for result in results] == [0, 1, 2, 3]
    assert [result["ok"] for result in results] == [True, False, False, True]
    assert (results[0]["model"], results[3]["model"]) == ("a:1b", "b")
    assert results[0]["response"] == results[3]["response"] != ""
    assert (results[1]["error_type"], results[2]["error_type"]) == ("model_not_found", "provider_not_found")


def test_compare_streams_each_with_its_number(client: FlaskClient, ollama: HTTPServer) -> None:
    _two(ollama)
    body = {"message": "Hi", "targets": [{"model": "a"}, {"model": "gone"}], "stream": True}

    got = events(client.post(COMPARE, json=body))

    assert got[0][0] == "start"
    assert got[-1][0] == "done"
    assert [name for name, _ in got].count("answer") == [name for name, _ in got].count("failed") == 1
    text = "".join(data["content"] for name, data in got if name == "delta" and data["target"] == 0)
    assert text == got[-1][1]["results"][0]["response"]
    assert got[-1][1]["results"][1]["error_type"] == "model_not_found"


def test_error_without_headers_of_its_own_tells_when_to_try_again(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json({}, status=429, headers={"Retry-After": "7"})
    targets = [{"model": "a:1b"}, {"model": "b:1b"}]

    response = client.post(COMPARE, json={"message": "Hi", "targets": targets})

    assert response.json is not None
    results = response.json["results"]
    assert [result["error_type"] for result in results] == ["rate_limited", "rate_limited"]
    assert [result["details"]["retry_after"] for result in results] == [7, 7]


@pytest.mark.parametrize("stream", [False, True])
def test_compare_is_stopped_by_its_request_id(
    app: Flask, client: FlaskClient, point: Point, stream: bool
) -> None:
    asked, hung_up = threading.Semaphore(0), threading.Semaphore(0)

    def say_nothing(connection: Connection) -> None:
        if connection.path == COMPLETIONS:
            asked.release()
            connection.wait_for_close()
            hung_up.release()

    answers: list[Any] = []
    with raw_server(say_nothing) as server:
        point(f"{server.url}/v1")
        body = {"message": "Hi", "targets": [{"model": "a"}, {"model": "b"}], "stream": stream}
        headers = {"X-Request-ID": "both"}

        def compare() -> None:
            answers.append(app.test_client().post(COMPARE, json=body, headers=headers, buffered=True))

        thread = threading.Thread(target=compare)
        thread.start()
        assert asked.acquire(timeout=5)
        assert asked.acquire(timeout=5)
        stopped = client.delete("/api/chat/both")
        thread.join(5)
        assert hung_up.acquire(timeout=5)
        assert hung_up.acquire(timeout=5)

    assert stopped.status_code == 204
    error = events(answers[0])[-1][1] if stream else answers[0].json
    assert error["error_type"] == "chat_stopped"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": "a"}, "targets"),
        ({"message": "a", "targets": [{}]}, "targets"),
        ({"message": "a", "targets": [{}] * 9}, "targets"),
        ({"message": "a", "targets": [{"provider": 5}, {}]}, "targets"),
        ({"message": "a", "targets": [{}, {}], "model": "x"}, "model"),
        ({"targets": [{}, {}]}, "message"),
    ],
)
def test_compare_of_bad_input_is_400_and_names_the_field(
    client: FlaskClient, body: dict[str, Any], field: str
) -> None:
    response = client.post(COMPARE, json=body)

    assert response.status_code == 400
    assert field in response.json["details"]  # type: ignore[index]

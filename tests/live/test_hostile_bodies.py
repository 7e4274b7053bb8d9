"""What a client sends never keeps the server from others, however large or hostile it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.live.process import BackendProcess
from tests.unit.format_checker.test_pool import ENDLESS

pytestmark = pytest.mark.live


@pytest.fixture
def backend(tmp_path: Path, httpserver: HTTPServer) -> Iterator[BackendProcess]:
    """A backend whose Ollama answers with the last message of each chat."""

    def answer(request: Request) -> Response:
        text = json.loads(request.get_data())["messages"][-1]["content"]
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return Response(json.dumps({"choices": [choice]}), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    with BackendProcess(
        tmp_path / "data", httpserver.url_for("").rstrip("/"), ("--enable", "ollama")
    ) as backend:
        yield backend


def health_while(backend: BackendProcess, request: Any) -> tuple[Any, int]:
    """Return the result of *request*, and the number of answers of ``/api/health`` while it ran."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(request()))
    answered = 0
    thread.start()
    while thread.is_alive():
        answered += backend.get("/api/health").status_code == 200
    return found[0], answered


def test_endless_format_takes_seconds_and_not_the_answer(backend: BackendProcess) -> None:
    body = {"message": ENDLESS["text"], "model": "m", "format": ENDLESS["wanted"]}

    response, answered = health_while(backend, lambda: backend.post("/api/chat", body))

    assert response.status_code == 200
    assert response.json()["response"] == ENDLESS["text"]
    assert response.json()["format_valid"] is None
    assert "could not be checked against `format`" in response.json()["notice"]
    assert answered > 4
    simple = {"message": "1", "model": "m", "format": {"type": "number"}}
    assert backend.post("/api/chat", simple).json()["response"] == "1"


@pytest.mark.parametrize(
    "message",
    [
        '"' + ("1" * 299 + "a") * 50_000 + '"',
        '{"a":[' + "1," * 7_000_000 + "1]}",
        '"' + "a " * 7_000_000 + '"',
    ],
    ids=["digits", "numbers", "words"],
)
def test_others_are_served_while_a_large_body_is_read(backend: BackendProcess, message: str) -> None:
    data = f'{{"model": "m", "message": {message}}}'
    headers = {"Content-Type": "application/json"}

    response, answered = health_while(
        backend, lambda: requests.post(backend.url + "/api/chat", data=data, headers=headers, timeout=100)
    )

    assert response.status_code in {200, 400}
    assert answered > 4


def test_server_ends_while_it_checks(backend: BackendProcess) -> None:
    body = {"message": ENDLESS["text"], "model": "m", "format": ENDLESS["wanted"], "stream": True}
    with backend.post("/api/chat", body, stream=True) as response:
        next(response.iter_lines())

        assert backend.process is not None
        backend.process.terminate()
        backend.process.wait(20)

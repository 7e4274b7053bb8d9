"""Names below `localhost` are this machine: no DNS is asked for them, and no proxy."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}


def test_chat_and_list_of_a_provider_below_localhost_ask_no_dns(
    client: FlaskClient, httpserver: HTTPServer, point: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_json(ANSWER)
    httpserver.expect_request("/api/tags").respond_with_json({"models": []})
    asked, resolve = [], socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    point(f"http://ollama.localhost:{httpserver.port}/v1")

    listed = client.get("/api/providers/ollama/models")
    chat = client.post("/api/chat", json={"message": "Hi", "model": "x"})

    assert listed.status_code == 200, listed.text
    assert chat.json is not None
    assert chat.json["response"] == "Hello"
    assert "ollama.localhost" not in asked

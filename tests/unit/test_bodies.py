"""Bodies that are large or odd: each is read in short steps, or refused with a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from app.large_json import SMALL
from app.services.chat.context_window import count_words

JSON = "application/json"
PADDING = '"system_prompt": "' + "x" * SMALL + '", '


def post(client: FlaskClient, path: str, body: str | bytes) -> Any:
    return client.post(path, data=body, content_type=JSON)


@pytest.mark.parametrize("padding", ["", PADDING], ids=["small", "large"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "not valid JSON"),
        ("[-Infinity]", "not valid JSON"),
        ("1e400", "not valid JSON"),
        ("1" * 400 + ".5", "not valid JSON"),
        ("1" * 5000, "not valid JSON"),
        ('"a', "not valid JSON"),
        ('"\\ud800"', "incomplete character"),
        ('{"\\uDFFF": 1}', "incomplete character"),
        ("[" * 200 + "]" * 200, "nested more than 128 times"),
        ("[" * 100_000, ""),
    ],
)
def test_odd_body_is_400(client: FlaskClient, value: str, padding: str, said: str) -> None:
    response = post(client, "/api/chat", f'{{{padding}"message": {value}}}')

    assert response.status_code == 400
    assert response.json["error_type"] == "invalid_request"
    assert said in response.json["error"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("item", ["[],", "{},"])
def test_body_of_too_many_objects_is_400(client: FlaskClient, path: str, item: str) -> None:
    response = post(client, path, '{"tools": [' + item * 100_001 + "{}]}")

    assert response.status_code == 400
    assert "100,000 lists and objects" in response.text


def test_large_body_arrives_as_it_is(client: FlaskClient, ollama: HTTPServer) -> None:
    text = 'é"\\\n😀' * 100_000
    ollama.expect_request("/v1/chat/completions").respond_with_json(
        {"choices": [{"message": {"content": "Hello!"}}]}
    )

    response = post(client, "/api/chat", json.dumps({"message": text, "model": "m"}))

    assert response.status_code == 200
    (sent,) = [json.loads(sent.get_data()) for sent, _ in ollama.log if sent.path == "/v1/chat/completions"]
    assert sent["messages"] == [{"role": "user", "content": text}]


def test_error_names_the_first_faults_only(client: FlaskClient) -> None:
    body = {"message": "a", **{f"{'long' * 100}{n}": 1 for n in range(1000)}, "n" * 500_000: 1}

    response = client.post("/api/chat", json=body)

    assert response.status_code == 400
    assert "Unknown field" in response.json["error"]
    assert len(response.data) < 20_000


@pytest.mark.parametrize(
    "text", ["", " ", "a", "one two", " a\n" * 300_000, "word" * 400_000, "ab " * 500_001]
)
def test_words_are_counted_as_split_counts_them(text: str) -> None:
    assert count_words(text) == len(text.split())

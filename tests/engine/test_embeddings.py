"""Embeddings of the engine, by a real model."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.embedder import WIDTH, install
from tests.engine.conftest import MODEL
from tests.engine.process import EngineProcess

pytestmark = pytest.mark.live

NAME = "embedder:1"


@pytest.fixture(scope="module")
def embedder(engine: EngineProcess) -> Iterator[EngineProcess]:
    """The engine with a model that makes embeddings."""
    install(engine, NAME)
    yield engine
    engine.request("DELETE", "/api/delete", json={"model": NAME})


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def _embed(engine: EngineProcess, **body: Any) -> Any:
    response = engine.post("/api/embed", {"model": NAME, **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_model_says_that_it_embeds(embedder: EngineProcess) -> None:
    models = {model["name"]: model["capabilities"] for model in embedder.get("/api/tags").json()["models"]}

    assert models[NAME] == ["embedding"]
    assert models[MODEL] == ["completion"]


def test_each_text_has_its_vector_of_length_one(embedder: EngineProcess) -> None:
    answer = _embed(embedder, input=["The sky is blue.", "Money", "The sky is blue."])

    first, second, third = answer["embeddings"]
    assert [len(vector) for vector in answer["embeddings"]] == [WIDTH] * 3
    assert math.hypot(*first) == pytest.approx(1, abs=1e-4)
    assert _cosine(first, third) == pytest.approx(1, abs=1e-3)
    assert _cosine(first, second) < 0.99
    assert answer["model"] == NAME
    assert answer["prompt_eval_count"] > 3
    assert answer["total_duration"] >= answer["load_duration"] > 0


def test_one_text_is_a_list_of_one_and_no_text_only_loads(embedder: EngineProcess) -> None:
    embedder.post("/api/embed", {"model": NAME, "input": "", "keep_alive": 0})

    empty = embedder.post("/api/embed", {"model": NAME, "input": ""})
    loaded = [model["name"] for model in embedder.get("/api/ps").json()["models"]]
    one = _embed(embedder, input="a")

    assert empty.json() == {"model": NAME, "embeddings": []}
    assert NAME in loaded
    assert len(one["embeddings"]) == 1


def test_dimensions_shorten_the_vectors_to_length_one_again(embedder: EngineProcess) -> None:
    (whole,) = _embed(embedder, input="a")["embeddings"]
    (short,) = _embed(embedder, input="a", dimensions=8)["embeddings"]

    assert len(short) == 8
    assert math.hypot(*short) == pytest.approx(1)
    assert _cosine(short, whole[:8]) == pytest.approx(1, abs=1e-3)


def test_text_longer_than_the_window_is_cut_or_refused(embedder: EngineProcess) -> None:
    options = {"num_ctx": 64}
    embedder.post("/api/embed", {"model": NAME, "input": "", "keep_alive": 0})  # its window is larger

    cut = _embed(embedder, input="sea " * 500, options=options)
    refused = embedder.post(
        "/api/embed", {"model": NAME, "input": "sea " * 500, "options": options, "truncate": False}
    )

    assert cut["prompt_eval_count"] == 64
    assert refused.status_code == 400
    assert refused.json() == {"error": "the input length exceeds the context length"}


@pytest.mark.parametrize(("body", "status"), [({"input": 5}, 400), ({"input": ["a", 5]}, 400)])
def test_input_of_a_wrong_type_is_refused(embedder: EngineProcess, body: Any, status: int) -> None:
    response = embedder.post("/api/embed", {"model": NAME, **body})

    assert (response.status_code, response.json()) == (status, {"error": "invalid input type"})


def test_old_route_answers_with_one_vector(embedder: EngineProcess) -> None:
    (vector,) = _embed(embedder, input="hello")["embeddings"]

    old = embedder.post("/api/embeddings", {"model": NAME, "prompt": "hello"}).json()
    empty = embedder.post("/api/embeddings", {"model": NAME}).json()

    assert _cosine(old["embedding"], vector) == pytest.approx(1, abs=1e-3)
    assert empty == {"embedding": []}


def test_openai_route_answers_in_numbers_or_base64(embedder: EngineProcess) -> None:
    asked = {"model": NAME, "input": ["hello", "sea"]}

    plain = embedder.post("/v1/embeddings", asked).json()
    packed = embedder.post("/v1/embeddings", {**asked, "encoding_format": "base64"}).json()

    assert set(plain) == {"object", "data", "model", "usage"}
    assert [entry["index"] for entry in plain["data"]] == [0, 1]
    assert plain["usage"]["total_tokens"] == plain["usage"]["prompt_tokens"] > 1
    for entry, other in zip(plain["data"], packed["data"], strict=True):
        unpacked = list(struct.unpack(f"<{WIDTH}f", base64.b64decode(other["embedding"])))
        assert _cosine(entry["embedding"], unpacked) == pytest.approx(1, abs=1e-3)


def test_chats_go_on_beside_it(embedder: EngineProcess) -> None:
    _embed(embedder, input="a")

    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    answer = embedder.post("/v1/chat/completions", chat)
    refused = embedder.post("/v1/chat/completions", {**chat, "model": NAME})

    assert answer.json()["choices"][0]["message"]["content"]
    assert refused.status_code == 400

"""Embeddings: ``POST /api/embed``, the older ``/api/embeddings``, and the answer of ``/v1/embeddings``."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from app.engine.gojson import Field
from app.engine.routes import conversation, wire
from app.engine.routes.answers import upstream_message
from app.engine.routes.chat import keep_alive_of, lease, missing_weights
from app.engine.routes.wire import ApiError
from app.engine.runners.relay import post

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine.gojson import Object
    from app.engine.models.store import ModelStore
    from app.engine.routes.wire import Services
    from app.engine.runners.child import Runner

_SHARED = {"model": Field("string"), "options": Field("object", "map[string]interface {}")}
_EMBED = _SHARED | {"truncate": Field("bool", "*bool"), "dimensions": Field("int")}
_EMBEDDINGS = _SHARED | {"prompt": Field("string")}


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors in the order of their texts; durations are in nanoseconds."""

    vectors: list[list[float]]
    prompt_tokens: int
    load_duration: int
    total_duration: int


def embed_routes(services: Services) -> Blueprint:
    """Build the two routes."""
    blp = Blueprint("embed", __name__)

    @blp.post("/api/embed")
    def embed() -> Response:
        body = wire.read_body("EmbedRequest", _EMBED)
        texts = texts_of(body.get("input"))
        found = embeddings(services, body, texts)
        answer = {"model": body["model"], "embeddings": found.vectors}
        if texts:
            answer |= {
                "total_duration": found.total_duration,
                "load_duration": found.load_duration,
                "prompt_eval_count": found.prompt_tokens,
            }
        return wire.json_response(answer)

    @blp.post("/api/embeddings")
    def old_embeddings() -> Response:
        body = wire.read_body("EmbeddingRequest", _EMBEDDINGS)
        try:
            found = embeddings(services, body, texts_of(body.get("prompt")), normalized=False)
        except ApiError as exc:
            if exc.status < 500:
                raise
            raise ApiError(500, exc.message) from exc  # Ollama has no 501 here (``embeddings_legacy``)
        return wire.json_response({"embedding": found.vectors[0] if found.vectors else []})

    return blp


def texts_of(value: Any) -> list[str]:
    """Return the texts of ``input``, which is a text or a list of texts; an empty text counts as none.

    :raises ApiError: 400
    """
    if value is None or value == "":
        return []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "invalid input type")
    return texts


def embeddings(services: Services, body: Object, texts: list[str], *, normalized: bool = True) -> Embeddings:
    """Load the model that *body* names, and return the vectors of *texts*.

    :raises ApiError: 404 for an unknown model, or the runner's status and message
    """
    started = time.perf_counter_ns()
    model = _find(services.store, str(body.get("model") or ""))
    options = body.get("options") or {}
    conversation.check_options(options)
    leased = lease(services, model, keep_alive_of(body), options)
    with missing_weights(str(body["model"])), leased as loaded:
        load_duration = time.perf_counter_ns() - started
        if not texts:
            return Embeddings([], 0, load_duration, load_duration)

        def ask(path: str, request: Object) -> Any:
            return _ask(services, loaded.runner, path, request)

        limit = loaded.launch.num_ctx if loaded.launch else 0
        sent = _fitted(ask, texts, limit, truncate=body.get("truncate") is not False)
        answer = ask("/v1/embeddings", {"input": sent, "embd_normalize": 2 if normalized else -1})
    vectors = [entry["embedding"] for entry in sorted(answer["data"], key=lambda entry: entry["index"])]
    if dimensions := body.get("dimensions"):
        vectors = [_shortened(vector, dimensions) for vector in vectors]
    tokens = answer["usage"]["prompt_tokens"]
    return Embeddings(vectors, tokens, load_duration, time.perf_counter_ns() - started)


def _find(store: ModelStore, typed: str) -> Any:
    """Find the model; for embeddings, Ollama's 404 has another text (``embed_unknown``)."""
    try:
        return wire.find_model(store, typed)
    except ApiError as exc:
        if exc.status != 404:
            raise
        raise ApiError(404, f'model "{typed}" not found, try pulling it first') from exc


def _ask(services: Services, runner: Runner, path: str, request: Object) -> Any:
    with post(runner, path, request, services.departures, wire.client_gone()) as answer:
        data = answer.read()
    if answer.status >= 400:
        raise ApiError(answer.status, upstream_message(answer.status, data))
    return json.loads(data)


def _fitted(
    ask: Callable[[str, Object], Any], texts: list[str], limit: int, *, truncate: bool
) -> list[str | list[int]]:
    """Cut texts that are longer than the window; a text that was cut becomes a list of tokens.

    :raises ApiError: 400, for a text that is too long and must not be cut
    """
    fitted: list[str | list[int]] = []
    for text in texts:
        fitted.append(text)
        if len(text.encode("utf-8", "replace")) < limit - 2:  # a token has a byte or more; 2 are special
            continue
        tokens = ask("/tokenize", {"content": text, "add_special": True})["tokens"]
        if len(tokens) > limit and not truncate:
            raise ApiError(400, "the input length exceeds the context length")
        if len(tokens) > limit:
            fitted[-1] = tokens[:limit]
    return fitted


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    if not 0 < dimensions < len(vector):
        return vector
    length = math.hypot(*vector[:dimensions]) or 1.0
    return [value / length for value in vector[:dimensions]]


def openai_answer(body: Object, found: Embeddings) -> Object:
    """Put *found* into the shape of ``/v1/embeddings``."""
    encode = _base64 if body.get("encoding_format") == "base64" else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": encode(vector), "index": index}
            for index, vector in enumerate(found.vectors)
        ],
        "model": body["model"],
        "usage": {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens},
    }


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")

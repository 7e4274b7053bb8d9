"""``/v1``: chat completions and completions, whose answers are the runner's bytes; embeddings; models."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from flask import Blueprint, Response

from app.engine import gojson
from app.engine.gojson import BadBodyError
from app.engine.routes import embed, openai_body, wire
from app.engine.routes.answers import events, upstream_message
from app.engine.routes.chat import missing_weights
from app.engine.routes.wire import JSON, ApiError
from app.engine.runners.child import LoadError
from app.engine.runners.relay import DIED, post
from app.engine.runners.scheduler import ClientLeftError, RunnerDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.engine.gojson import Object
    from app.engine.models.store import Model
    from app.engine.routes.wire import Services
    from app.engine.runners.scheduler import Loaded

_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_LAST_CHOICE = {"index": 0, "delta": {"content": ""}, "finish_reason": None}


def openai_routes(services: Services) -> Blueprint:
    """Build the routes."""
    blp = Blueprint("openai", __name__)
    _add_models(blp, services)
    _add_errors(blp)

    @blp.post("/v1/chat/completions")
    def chat_completions() -> Response:
        body = _read_body(openai_body.check_chat)
        return _relay(services, body, "/v1/chat/completions", openai_body.chat)

    @blp.post("/v1/completions")
    def completions() -> Response:
        body = _read_body(openai_body.check_completion)
        return _relay(services, body, "/v1/completions", openai_body.completion)

    @blp.post("/v1/embeddings")
    def embeddings() -> Response:
        body = _read_body(openai_body.check_embeddings)
        found = embed.embeddings(services, body, embed.texts_of(body["input"]))
        return _json(embed.openai_answer(body, found))

    return blp


def _add_models(blp: Blueprint, services: Services) -> None:
    store = services.store

    @blp.get("/v1/models")
    def list_models() -> Response:
        models = [_entry(str(model.name), model) for model in store.models()]
        return _json({"object": "list", "data": models or None})

    @blp.get("/v1/models/<name>")
    def get_model(name: str) -> Response:
        parsed = wire.parse_name(name)
        model = store.find(parsed)
        if model is None:
            raise ApiError(404, f"model '{parsed}' not found")
        return _json(_entry(name, model))


def _entry(name: str, model: Model) -> Object:
    return {
        "id": name,
        "object": "model",
        "created": model.modified_ns // 1_000_000_000,
        "owned_by": model.name.namespace,
    }


def _json(value: Object, status: int = 200) -> Response:
    """Answer as this part of Ollama does: with a newline at the end, and without a charset."""
    return Response(gojson.line(value), status, content_type=JSON)


def _add_errors(blp: Blueprint) -> None:
    @blp.errorhandler(ApiError)
    def api_error(exc: ApiError) -> Response:
        return _error(exc.status, exc.message)

    @blp.errorhandler(LoadError)
    def load_error(exc: LoadError) -> Response:
        return _error(500, str(exc))

    @blp.errorhandler(RunnerDiedError)
    def runner_died(_: RunnerDiedError) -> Response:
        return _error(500, DIED)

    @blp.errorhandler(OSError)
    def disk_failed(exc: OSError) -> Response:
        return _error(500, wire.disk_failed(exc))

    @blp.errorhandler(500)
    def fault(_: Exception) -> Response:  # Flask has logged the traceback
        return _error(500, wire.FAULT)

    @blp.errorhandler(BadBodyError)
    def bad_body(exc: BadBodyError) -> Response:  # Ollama's web framework answers these, with a charset
        return wire.json_response(_error_body(400, str(exc)), 400)


def _error(status: int, message: str) -> Response:
    return _json(_error_body(status, message), status)


def _error_body(status: int, message: str) -> Object:
    kind = _TYPES.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _read_body(check: Callable[[bytes], Object]) -> Object:
    raw = wire.raw_body()
    if not raw:
        raise BadBodyError("EOF")
    return check(raw)


def _relay(
    services: Services,
    body: Object,
    path: str,
    translate: Callable[[Services, Model, Object], Object],
) -> Response:
    """Send the translated *body* to the model's runner; pass its answer on as it comes."""
    typed = str(body.get("model") or "")
    if not typed:
        raise ApiError(400, "model is required")
    model, gone = wire.find_model(services.store, typed), wire.client_gone()
    sent = translate(services, model, body)
    with ExitStack() as stack:
        loaded = stack.enter_context(_lease(services, model, typed, gone))
        upstream = stack.enter_context(post(loaded.runner, path, sent, services.departures, gone))
        if upstream.status >= 400:
            return _error(upstream.status, upstream_message(upstream.status, upstream.read()))
        rename = _renamer(str(loaded.model.name), typed)
        if not body.get("stream"):
            return Response(rename(upstream.read()), content_type=JSON)
        parts = upstream.parts()
        first = next(parts, b"")  # wait for it, so that a failure before it has its own status
        response = Response(_stream(first, parts, rename), content_type="text/event-stream")
        response.call_on_close(stack.pop_all().close)
        return response


@contextmanager
def _lease(services: Services, model: Model, typed: str, gone: Callable[[], bool]) -> Iterator[Loaded]:
    with missing_weights(typed), services.scheduler.lease(model, gone=gone) as loaded:
        yield loaded


def _renamer(alias: str, typed: str) -> Callable[[bytes], bytes]:
    """Return a function that puts the model's name into an answer as the client typed it.

    It replaces bytes: inside the answer's text quotes are escaped, so the text cannot match.
    """
    old, new = b'"model":' + gojson.dumps(alias), b'"model":' + gojson.dumps(typed)
    return (lambda part: part) if old == new else (lambda part: part.replace(old, new))


def _stream(first: bytes, parts: Iterator[bytes], rename: Callable[[bytes], bytes]) -> Iterator[bytes]:
    try:
        yield rename(first)
        for part in parts:
            yield rename(part)
    except RunnerDiedError:
        yield _last_chunk(first)
    except ClientLeftError:
        return


def _last_chunk(first: bytes) -> bytes:
    """Return the last chunk for a stream whose runner died: like Ollama, no error and no ``[DONE]``."""
    begun = next(events([first]), {})
    return b"data: " + gojson.dumps({
        "id": begun.get("id", "chatcmpl-0"),
        "object": begun.get("object", "chat.completion.chunk"),
        "created": begun.get("created", int(time.time())),
        "model": "",
        "system_fingerprint": "fp_ollama",
        "choices": [_LAST_CHOICE],
    }) + b"\n\n"  # fmt: skip

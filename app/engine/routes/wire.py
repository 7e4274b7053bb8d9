"""Read requests and write answers as Ollama does; used by every route."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Response, request

from app.engine import gojson
from app.engine.gojson import BadBodyError, Field, Object
from app.engine.models.store import disk_trouble
from app.model_name import ModelName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.engine.models.store import Model, ModelStore
    from app.engine.pulls.pulls import Pulls
    from app.engine.runners.relay import Departures
    from app.engine.runners.scheduler import Scheduler

log = logging.getLogger(__name__)

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
FAULT = "the engine has a fault in this request; its log tells more"
_MAX_JSON = 100_000_000  # bytes of a body, which may hold images


@dataclass(frozen=True)
class Services:
    """The objects that the views use; an application has one of each."""

    store: ModelStore
    scheduler: Scheduler
    departures: Departures
    pulls: Pulls


class ApiError(Exception):
    """A failure that is answered with *status* and Ollama's *message*."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def json_response(value: object, status: int = 200, content_type: str = JSON_UTF8) -> Response:
    """Answer with *value* as JSON."""
    return Response(gojson.dumps(value), status, content_type=content_type)


def empty_response(status: int = 200) -> Response:
    """Answer without a body and without a content type."""
    response = Response(status=status)
    del response.headers["Content-Type"]
    return response


def ndjson(lines: Iterable[Object]) -> Response:
    """Stream *lines* as NDJSON, each as soon as it comes."""
    return Response((gojson.line(entry) for entry in lines), content_type=NDJSON)


def disk_failed(exc: OSError) -> str:
    """Log a failure of the disk, and return the message for the client."""
    message = disk_trouble(exc)
    log.warning("%s", message)
    return message


def raw_body() -> bytes:
    """Return the request's body.

    :raises ApiError: 413, when it is too long to be JSON
    """
    if (request.content_length or 0) > _MAX_JSON:
        raise ApiError(413, f"the request body is longer than {_MAX_JSON} bytes")
    return request.get_data(cache=False)


def read_body(struct: str, fields: dict[str, Field]) -> Object:
    """Decode the request's body as the Go *struct*.

    :raises ApiError: 400, with Go's message
    """
    raw = raw_body()
    if not raw:
        raise ApiError(400, "missing request body")
    try:
        body = gojson.decode(raw, struct, fields)
    except BadBodyError as exc:
        raise ApiError(400, str(exc)) from exc
    return body


def model_of(body: Object) -> str:
    """Return ``model``, or ``name``, its older name; empty when *body* has neither."""
    return str(body.get("model") or body.get("name") or "")


def parse_name(text: str, message: str = "invalid model name") -> ModelName:
    """Parse a model's name.

    :raises ApiError: 400 with *message*
    """
    try:
        return ModelName.parse(text)
    except ValueError as exc:
        raise ApiError(400, message) from exc


def find_model(store: ModelStore, text: str) -> Model:
    """Find an installed model for a request that runs it.

    :raises ApiError: 404 with the name as the client typed it (``chat_native_unknown``)
    """
    missing = ApiError(404, f"model '{text}' not found")
    if not text:
        raise missing
    model = store.find(parse_name(text))
    if model is None:
        raise missing
    return model


def client_gone() -> Callable[[], bool]:
    """Return a function that tells whether this request's client has disconnected."""
    gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return gone

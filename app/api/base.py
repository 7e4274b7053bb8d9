"""The base of all views: parse arguments, give each request an id and a log line, and answer errors."""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import flask_smorest
from flask import Flask, Request, Response, current_app, g, jsonify, request
from marshmallow import ValidationError, missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, RequestEntityTooLarge

from app.body_limits import Accepted, accepted_by
from app.errors import ServerStopping, ServiceError, error_body, server_failed
from app.large_json import MAX_DEPTH, SMALL, TooMuch, check_depth, loads
from app.openai_errors import openai_error, speaks_openai
from app.schemas.fields import MOST_FAULTS
from app.security import ANSWER_HEADERS
from app.stopping import stopping

log = logging.getLogger(__name__)

Decorator = Callable[[Any], Any]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LONGEST = 200  # characters of a path in the log or in an answer
_NO_JSON = "The body is not valid JSON."
_LONGEST_NAME = 100  # characters of a field's name in an error

_SLUGS = {500: "internal_error", 404: "not_found", 413: "body_too_large", 415: "unsupported_media_type"}


def or_stream(schema: Any = None) -> dict[str, Any]:
    """Return what ``@blp.doc`` documents: a success is JSON of *schema*, or a stream of events."""
    content: dict[str, Any] = {"text/event-stream": {}}
    if schema is not None:
        content["application/json"] = {"schema": schema}
    return {"200": {"content": content}}


class Parser(FlaskParser):
    """Parses arguments; invalid input is 400, not webargs's 422."""

    DEFAULT_VALIDATION_STATUS = HTTPStatus.BAD_REQUEST

    def load_json(self, req: Request, schema: Any) -> Any:
        """Return the JSON value of the body; a body without one is invalid input."""
        data = req.get_data(cache=True)
        if not data or not req.is_json:
            return missing
        try:
            return _parse(data, _accepted().containers)
        except TooMuch as exc:
            message = str(exc)
        except UnicodeEncodeError:
            message = "The body holds an incomplete character."
        except (ValueError, RecursionError):
            message = _NO_JSON
        faults = ValidationError({"json": [message]})
        return self.handle_error(faults, req, schema, error_status_code=None, error_headers=None)


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource's views.

    :meth:`doc` and :meth:`alt_response` only document a view: each would else be a call in each request.
    """

    ARGUMENTS_PARSER = Parser()

    @staticmethod
    def doc(**kwargs: Any) -> Decorator:
        """Return the decorator that documents *kwargs*."""
        return _documenting(flask_smorest.Blueprint.doc(**kwargs))

    def alt_response(self, *args: Any, **kwargs: Any) -> Decorator:
        """Return the decorator that documents another response."""
        return _documenting(super().alt_response(*args, **kwargs))


class App(Flask):
    """The application. No view or hook of it is a coroutine, so none has to be looked at in each request."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return *func*."""
        return func


def _documenting(decorate: Decorator) -> Decorator:
    """Return a decorator that only gives a view the documentation that *decorate* would give it."""

    def document(view: Any) -> Any:
        view._apidoc = decorate(view)._apidoc  # flask-smorest's name  # noqa: SLF001
        return view

    return document


def add_request_hooks(app: Flask) -> None:
    """Give each request an id and a log line; refuse it when this process is being stopped."""
    app.before_request(_begin)
    app.after_request(_end)


def _accepted() -> Accepted:
    """Return the bodies that the current view accepts."""
    return accepted_by(current_app.view_functions.get(request.endpoint or ""))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("the number is too large")
    return number


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


# Python's parser makes infinite numbers of large ones, and accepts NaN and Infinity.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _parse(data: bytes, containers: int) -> Any:
    """Return the JSON value of a body.

    :param containers: the most lists and objects
    :raises ValueError: when it is not JSON
    :raises UnicodeEncodeError: when it holds half a surrogate pair, which cannot be written as UTF-8 again
    :raises TooMuch: when it has too many values or levels
    """
    text = data.decode()
    if len(data) > SMALL:
        value = loads(text, containers=containers, parse_float=_finite, parse_constant=_refuse)
    else:
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            check_depth(value)
    if b"\\ud" in data or b"\\uD" in data:  # an escaped surrogate, perhaps without its other half
        for part in _ENCODER.iterencode(value):
            part.encode()
    return value


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    g.started = time.monotonic()
    if stopping.is_set():
        raise ServerStopping


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if "X-Frame-Options" not in response.headers:  # the API docs have their own
        response.headers.extend(ANSWER_HEADERS)
    milliseconds = (time.monotonic() - g.started) * 1000
    method, path = _short(request.method), _short(request.path)
    path = path.encode("unicode_escape").decode("ascii")  # a line break would forge a log line
    log.info("%s %s %s %d %.1f ms", g.request_id, method, path, response.status_code, milliseconds)
    return response


def _short(text: str) -> str:
    """Return *text* from a client without its end if it is very long."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def answer_service_error(error: ServiceError) -> Response:
    """Answer with the error that a service raised."""
    log.info("%s %s: %s", g.request_id, error.error_type, error.message)
    response = _answer(error.body(g.request_id), error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def answer_http_error(error: HTTPException) -> Response:
    """Answer with the error that Flask, Werkzeug or webargs raised."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    faults = getattr(error, "data", {}).get("messages")
    if faults is not None:
        body = _invalid_input(faults)
    else:
        message, hint = _explain(error)
        slug = _SLUGS.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
        body = error_body(message, slug, g.request_id, hint=hint)
    response = _answer(body, status)
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
    return response


def answer_unexpected_error(error: Exception) -> Response:
    """Answer a fault of this program: the details go to the log, not to the client."""
    log.error("%s unexpected %s", g.request_id, type(error).__name__, exc_info=error)
    fault = server_failed(hint=f"Look for {g.request_id} in the log, and report it as a bug.")
    return _answer(fault.body(g.request_id), fault.status)


def _answer(body: dict[str, Any], status: int) -> Response:
    """Answer with an error *body*, below ``/v1`` in OpenAI's form."""
    response = jsonify(openai_error(body, status) if speaks_openai(request.path) else body)
    response.status_code = status
    return response


def _invalid_input(faults: dict[str, Any]) -> dict[str, Any]:
    """Return the error body for marshmallow's *faults*, which are by location and field."""
    fields = faults.get("json", faults)
    if fields == {"_schema": ["Invalid input type."]}:
        fields = ["The body must be a JSON object."]
    elif fields == ["Invalid JSON body."]:
        fields = [_NO_JSON]
    fields = _first_faults(fields, MOST_FAULTS)[0]
    return error_body(
        "; ".join(_sentences(fields, "")),
        "invalid_request",
        g.request_id,
        hint="The fields of each request are described at /api/docs.",
        details=fields if isinstance(fields, dict) else {"body": fields},
    )


def _first_faults(faults: Any, most: int) -> tuple[Any, int]:
    """Return the first of *faults*, *most* at most, and their number; names of fields are cut."""
    if not isinstance(faults, dict):
        return faults[:most], len(faults[:most])
    found: dict[str, Any] = {}
    count = 0
    for key, inner in faults.items():
        if count >= most:
            break
        found[str(key)[:_LONGEST_NAME]], more = _first_faults(inner, most - count)
        count += more
    return found, count


def _sentences(faults: Any, path: str) -> list[str]:
    """Return all messages, each with its field in front, unless the message names the field itself."""
    if isinstance(faults, dict):
        return [
            sentence
            for key, inner in faults.items()
            for sentence in _sentences(inner, f"{path}.{key}" if path else str(key))
        ]
    return [f if f.endswith("is required") or not path else f"{path}: {f}" for f in faults]


def _explain(error: HTTPException) -> tuple[str, str]:
    """Return a message and a hint for an HTTP error."""
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return f"{_short(request.method)} is not allowed for {_short(request.path)}.", f"Allowed: {allowed}"
    if isinstance(error, RequestEntityTooLarge):
        limit = request.max_content_length
        return "The body is too large.", f"At most {limit} bytes are accepted here."
    if isinstance(error, ClientDisconnected):
        return "The body is incomplete, or is not encoded as its headers say.", "Send the request again."
    if error.code == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {_short(request.path)}.", "The API is described at /api/docs."
    return error.description or "The request cannot be served.", ""

"""Turn the generator of a service into a response: a ``text/event-stream``, or one JSON body.

A stream has exactly one terminal event. A generator yields an empty part in each silent tick; then this
module checks whether the client left, and closes the generator to end the service's work.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from http import HTTPStatus
from json.encoder import encode_basestring_ascii
from typing import Any, TypeVar

from flask import Response, g, request

from app.errors import ServiceError, server_failed
from app.openai_errors import openai_error

log = logging.getLogger(__name__)

Event = tuple[str, Mapping[str, object]] | tuple[str, Mapping[str, object], int]
"""A name, the data, and for some streams a number, which a client sends back as ``Last-Event-ID``."""

ErrorEvent = Callable[[ServiceError, str], bytes]
"""Returns the bytes of the event for an error; the second argument is the request's id."""

Data = TypeVar("Data", bound=Mapping[str, object])
Part = TypeVar("Part", bound=Sequence[Any])
"""The events, or the bytes, that arrived together."""

PING_INTERVAL = 10.0
"""Seconds of silence after which a comment keeps the connection alive."""

# Made once: json.dumps() makes an encoder in each call, and a stream has thousands of events.
_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class ClientGone(ServiceError):
    """The client left; only the log shows this error."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "client_gone"


def last_event(
    events: Generator[Sequence[tuple[str, Data] | tuple[str, Data, int]], None, None],
) -> Data:
    """Wait for the end of *events*, and return the data of the last event.

    :raises ClientGone: when the client leaves first
    """
    return _last(events)[-1][1]


def json_answer(data: Mapping[str, object]) -> Response:
    """Answer with *data*, whose fields are those of an answer already: no schema has to choose them."""
    return Response(_json(data) + "\n", content_type="application/json")


def whole(chunks: Generator[bytes, None, None]) -> Response:
    """Answer with JSON: the only one of *chunks* that is not empty.

    :raises ClientGone: when the client leaves first
    """
    return Response(_last(chunks), content_type="application/json")


def event_stream(events: Generator[Sequence[Event], None, None]) -> Response:
    """Answer with *events*, each as soon as it comes.

    An error before the first event is raised here, so that the response has the error's HTTP status. A later
    error becomes the last event.
    """
    return _stream(events, encode, _error_event)


def byte_stream(chunks: Generator[bytes, None, None], error_event: ErrorEvent) -> Response:
    """Answer with *chunks* of an encoded event stream; else like :func:`event_stream`."""
    return _stream(chunks, bytes, error_event)


def _last(parts: Generator[Part, None, None]) -> Part:
    last: Part | None = None
    try:
        with closing(parts):
            while part := _next(parts, request.environ):
                last = part
    except ClientGone:
        log.info("%s the client left", g.request_id)
        raise
    if last is None:
        raise AssertionError("nothing was answered")
    return last


def _stream(
    parts: Generator[Part, None, None], encoded: Callable[[Part], bytes], error_event: ErrorEvent
) -> Response:
    try:
        part = _next(parts, request.environ)
        first = encoded(part) if part else b""
    except ClientGone:
        parts.close()
        log.info("%s the client left before the answer began", g.request_id)
        return Response(status=499)
    except BaseException:
        parts.close()
        raise
    if not first:  # the client has seen all events: 204 tells an EventSource not to reconnect
        return Response(status=204)
    response = Response(
        _body(first, parts, encoded, error_event, request.environ, g.request_id),
        mimetype="text/event-stream",
        # A proxy must not hold back or compress the stream; nginx reads the second header.
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )
    response.call_on_close(parts.close)  # _body() closes them only if the server has begun to read it
    return response


def _next(parts: Iterable[Part], environ: dict[str, Any]) -> Part | None:
    """Return the next of *parts* that is not empty, or None at the end.

    :raises ClientGone: when the client leaves first
    """
    for part in parts:
        if part:
            return part
        if client_left(environ):
            raise ClientGone("The client left.")
    return None


def _body(
    first: bytes,
    parts: Generator[Part, None, None],
    encoded: Callable[[Part], bytes],
    error_event: ErrorEvent,
    environ: dict[str, Any],
    request_id: str,
) -> Iterator[bytes]:
    """Yield the bytes of the response: *first*, the other *parts*, and pings in silence."""
    with closing(parts):
        try:
            yield first
            written = time.monotonic()
            for part in parts:
                if part:
                    yield encoded(part)
                elif client_left(environ):
                    log.info("%s the client left in mid-stream", request_id)
                    return
                elif time.monotonic() - written > PING_INTERVAL:
                    yield b": ping\n\n"
                else:
                    continue
                written = time.monotonic()
        except GeneratorExit:  # the server noticed it before client_left() was asked
            log.info("%s the client left in mid-stream", request_id)
            raise
        except ServiceError as exc:
            log.info("%s %s in mid-stream: %s", request_id, exc.error_type, exc.message)
            yield error_event(exc, request_id)
        except Exception:  # the outermost edge: a stream must not end without a terminal event
            log.exception("%s the stream failed", request_id)
            yield error_event(server_failed(), request_id)


def encode(events: Iterable[Event]) -> bytes:
    """Return the bytes of *events*; the JSON is ASCII, because UTF-8 cannot encode a lone surrogate."""
    return "".join([_event(*event) for event in events]).encode("ascii")


def _event(name: str, data: Mapping[str, object], number: int | None = None) -> str:
    id = "" if number is None else f"id: {number}\n"
    return f"{id}event: {name}\ndata: {_object(data)}\n\n"


def _object(data: Mapping[str, object]) -> str:
    """Return the JSON of *data*. Most events hold one text, for which an encoder would be made in vain."""
    if len(data) == 1:
        [(name, value)] = data.items()
        if isinstance(value, str):
            return f"{{{encode_basestring_ascii(name)}:{encode_basestring_ascii(value)}}}"
    return _json(data)


def _error_event(error: ServiceError, request_id: str) -> bytes:
    return encode([("error", error.body(request_id))])


def openai_error_event(error: ServiceError, request_id: str) -> bytes:
    """Return the event for *error* in a stream of OpenAI's API.

    It begins with a blank line, which ends the event before it if that was cut off.
    """
    body = openai_error(error.body(request_id), error.status)
    return b"\n\ndata: " + json.dumps(body, allow_nan=False).encode("ascii") + b"\n\n"


def client_left(environ: dict[str, Any]) -> bool:
    """Tell whether the client closed its connection; only waitress and gunicorn let the app ask."""
    if "waitress.client_disconnected" in environ:
        left: bool = environ["waitress.client_disconnected"]()
        return left
    connection: socket.socket | None = environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, ValueError):  # no data yet; or TLS, which cannot peek: there only sending fails
        return False
    except OSError:
        return True

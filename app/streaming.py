"""Answer with what a service yields: all of it as a ``text/event-stream``, or its last part alone.

A stream has exactly one terminal event. A service yields an empty part in each silent tick, so that a client
that left is noticed; closing the service's generator ends its work.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Response, g, request

from app.errors import ServiceError
from app.openai_errors import openai_error

log = logging.getLogger(__name__)

Event = tuple[str, Mapping[str, object]] | tuple[str, Mapping[str, object], int]
"""A name, the data, and the number by which a client can come back, where there is one."""

ErrorEvent = Callable[[ServiceError, str], bytes]
"""Returns the bytes of an error's event; the text is the request's id."""

Data = TypeVar("Data", bound=Mapping[str, object])
Part = TypeVar("Part", bound=Sequence[Any])
"""Events or bytes, all that came at a time."""

PING_INTERVAL = 10.0
"""Seconds of silence after which a comment keeps the connection alive."""

_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # json.dumps() makes one per call


class ClientGone(ServiceError):
    """The client left: the answer to it is for the log."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "client_gone"


def last_event(
    events: Generator[Sequence[tuple[str, Data] | tuple[str, Data, int]], None, None],
) -> Data:
    """Wait for the only event of *events* and return its data.

    :raises ClientGone: when the client left before
    """
    return _last(events)[-1][1]


def whole(chunks: Generator[bytes, None, None]) -> Response:
    """Answer with the only one of *chunks* that is not empty, which is JSON.

    :raises ClientGone: when the client left before
    """
    return Response(_last(chunks), mimetype="application/json")


def event_stream(events: Generator[Sequence[Event], None, None]) -> Response:
    """Answer with *events*, as they come.

    What the generator raises before its first event is raised here, and keeps its HTTP status; what it raises
    later becomes the last event.
    """
    return _stream(events, encode, _error_event)


def byte_stream(chunks: Generator[bytes, None, None], error_event: ErrorEvent) -> Response:
    """Answer with *chunks* of an event stream, as :func:`event_stream` does with events."""
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
        first = _next(parts, request.environ)
    except ClientGone:
        parts.close()
        log.info("%s the client left before the answer began", g.request_id)
        return Response(status=499)
    except BaseException:
        parts.close()
        raise
    if first is None:  # the client has seen it all; this status tells an EventSource to stop asking
        return Response(status=204)
    response = Response(
        _body(first, parts, encoded, error_event, request.environ, g.request_id),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )
    response.call_on_close(parts.close)  # also when the body was never begun
    return response


def _next(parts: Iterable[Part], environ: dict[str, Any]) -> Part | None:
    """Return the next of *parts* that is not empty, None at the end.

    :raises ClientGone: when the client left before it came
    """
    for part in parts:
        if part:
            return part
        if client_left(environ):
            raise ClientGone("The client left.")
    return None


def _body(
    first: Part,
    parts: Generator[Part, None, None],
    encoded: Callable[[Part], bytes],
    error_event: ErrorEvent,
    environ: dict[str, Any],
    request_id: str,
) -> Iterator[bytes]:
    """Yield what is written, *first* and then the other *parts*."""
    with closing(parts):
        try:
            yield encoded(first)
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
        except GeneratorExit:  # the server noticed first
            log.info("%s the client left in mid-stream", request_id)
            raise
        except ServiceError as exc:
            log.info("%s %s in mid-stream: %s", request_id, exc.error_type, exc.message)
            yield error_event(exc, request_id)
        except Exception:  # the stream's outermost edge: it must not end without a terminal event
            log.exception("%s the stream failed", request_id)
            yield error_event(ServiceError("The server failed. Its log says more."), request_id)


def encode(events: Iterable[Event]) -> bytes:
    """Return *events* as they are written; JSON in ASCII, for a lone surrogate has no UTF-8."""
    return "".join(
        f"{_id(*number)}event: {name}\ndata: {_json(data)}\n\n" for name, data, *number in events
    ).encode("ascii")


def _id(number: int | None = None) -> str:
    return "" if number is None else f"id: {number}\n"


def _error_event(error: ServiceError, request_id: str) -> bytes:
    return encode([("error", error.body(request_id))])


def openai_error_event(error: ServiceError, request_id: str) -> bytes:
    """Return *error* as OpenAI's clients find it in a stream.

    It begins with the end of the event before it, which may have been cut.
    """
    body = openai_error(error.body(request_id), error.status)
    return b"\n\ndata: " + json.dumps(body, allow_nan=False).encode("ascii") + b"\n\n"


def client_left(environ: dict[str, Any]) -> bool:
    """Tell whether the client of a request hung up, where the server can tell: waitress and gunicorn."""
    if "waitress.client_disconnected" in environ:
        left: bool = environ["waitress.client_disconnected"]()
        return left
    connection: socket.socket | None = environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, ValueError):  # TLS cannot peek: there a client leaves when nothing can be sent
        return False
    except OSError:
        return True

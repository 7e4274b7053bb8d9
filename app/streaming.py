"""Events as a ``text/event-stream`` response with exactly one terminal event."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Response, g, request

from app.errors import ServiceError
from app.openai_errors import openai_error

log = logging.getLogger(__name__)

Event = tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], int]
"""A name, the data, and the number by which a client can come back, where there is one."""

ErrorEvent = Callable[[ServiceError, str], bytes]
"""Makes the event of an error and a request's id."""

Batch = TypeVar("Batch", bound=Sequence[Any])

PING_INTERVAL = 10.0
"""Seconds of silence after which a comment keeps the connection alive."""


_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # json.dumps() makes one per call


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class ClientGone(ServiceError):
    """Answers, for the log, a client that is not there."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "client_gone"


def last_event(events: Generator[Sequence[Event], None, None]) -> dict[str, Any]:
    """Wait for the only event of *events* and return its data.

    :raises ClientGone: when the client does not wait for it
    """
    return _last(events)[-1][1]


def whole(chunks: Generator[bytes, None, None]) -> Response:
    """Answer with the only one of *chunks* that is not empty, which is JSON.

    :raises ClientGone: when the client does not wait for it
    """
    return Response(_last(chunks), mimetype="application/json")


def _last(batches: Generator[Batch, None, None]) -> Batch:
    last: Batch | None = None
    try:
        for batch in _while_connected(batches, request.environ):
            last = batch or last
    except ClientLeft as exc:
        log.info("%s the client left", g.request_id)
        raise ClientGone("The client left.") from exc
    finally:
        batches.close()
    if last is None:
        raise AssertionError("nothing was answered")
    return last


def event_stream(events: Generator[Sequence[Event], None, None]) -> Response:
    """Answer with *events*; an empty list is a chance to look after the client.

    What the generator raises before its first event is raised here, and keeps its HTTP status.
    """
    return byte_stream(_encoded(events), _error_event)


def byte_stream(chunks: Generator[bytes, None, None], error_event: ErrorEvent) -> Response:
    """Answer with *chunks* of an event stream; an empty one is a chance to look after the client.

    What the generator raises before its first chunk is raised here, and keeps its HTTP status.

    :param error_event: makes the last chunk of what the generator raises later
    """
    environ = request.environ
    try:
        first = next((chunk for chunk in _while_connected(chunks, environ) if chunk), None)
    except ClientLeft:
        chunks.close()
        log.info("%s the client left before the answer began", g.request_id)
        return Response(status=499)
    except BaseException:
        chunks.close()
        raise
    if first is None:  # the client has seen it all; this status tells an EventSource to stop asking
        return Response(status=204)
    response = Response(
        _body(first, chunks, error_event, environ, g.request_id),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )
    response.call_on_close(chunks.close)  # also when the body was never begun
    return response


def _body(
    first: bytes,
    chunks: Generator[bytes, None, None],
    error_event: ErrorEvent,
    environ: dict[str, Any],
    request_id: str,
) -> Iterator[bytes]:
    try:
        yield first
        written = time.monotonic()
        for chunk in _while_connected(chunks, environ):
            if chunk:
                yield chunk
                written = time.monotonic()
            elif time.monotonic() - written > PING_INTERVAL:
                yield b": ping\n\n"
                written = time.monotonic()
    except ClientLeft:
        log.info("%s the client left in mid-stream", request_id)
    except GeneratorExit:  # the server noticed first
        log.info("%s the client left in mid-stream", request_id)
        raise
    except ServiceError as exc:
        log.info("%s %s in mid-stream: %s", request_id, exc.error_type, exc.message)
        yield error_event(exc, request_id)
    except Exception:  # the stream's outermost edge: it must not end without a terminal event
        log.exception("%s the stream failed", request_id)
        yield error_event(ServiceError("The server failed. Its log says more."), request_id)
    finally:
        chunks.close()


def _encoded(events: Generator[Sequence[Event], None, None]) -> Generator[bytes, None, None]:
    try:
        for batch in events:
            yield encode(batch)
    finally:
        events.close()


def _error_event(error: ServiceError, request_id: str) -> bytes:
    return encode([("error", error.body(request_id))])


def openai_error_event(error: ServiceError, request_id: str) -> bytes:
    """Return *error* as OpenAI's clients find it in a stream.

    It begins with the end of the event before it, which may have been cut.
    """
    body = openai_error(error.body(request_id), error.status)
    return b"\n\ndata: " + json.dumps(body, allow_nan=False).encode("ascii") + b"\n\n"


def encode(events: Iterable[Event]) -> bytes:
    """Return *events* as they are written; JSON in ASCII, for a lone surrogate has no UTF-8."""
    return "".join(
        f"{_id(*number)}event: {name}\ndata: {_json(data)}\n\n" for name, data, *number in events
    ).encode("ascii")


def _id(number: int | None = None) -> str:
    return "" if number is None else f"id: {number}\n"


def _while_connected(batches: Iterable[Batch], environ: dict[str, Any]) -> Iterator[Batch]:
    for batch in batches:
        if not batch and client_left(environ):
            raise ClientLeft
        yield batch


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

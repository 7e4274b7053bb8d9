"""Events as a ``text/event-stream`` response with exactly one terminal event."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from flask import Response, g, request

from app.errors import ServiceError, error_body

log = logging.getLogger(__name__)

Event = tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], int]
"""A name, the data, and the number by which a client can come back, where there is one."""

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
    data: dict[str, Any] = {}
    try:
        for batch in _while_connected(events, request.environ):
            data = batch[-1][1] if batch else data
    except ClientLeft as exc:
        log.info("%s the client left", g.request_id)
        raise ClientGone("The client left.") from exc
    finally:
        events.close()
    return data


def event_stream(events: Generator[Sequence[Event], None, None]) -> Response:
    """Answer with *events*; an empty list is a chance to look after the client.

    What the generator raises before its first event is raised here, and keeps its HTTP status.
    """
    environ = request.environ
    try:
        first = next((batch for batch in _while_connected(events, environ) if batch), None)
    except ClientLeft:
        events.close()
        log.info("%s the client left before the answer began", g.request_id)
        return Response(status=499)
    except BaseException:
        events.close()
        raise
    if first is None:  # the client has seen it all; this status tells an EventSource to stop asking
        return Response(status=204)
    response = Response(
        _body(first, events, environ, g.request_id),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )
    response.call_on_close(events.close)  # also when the body was never begun
    return response


def _body(
    first: Sequence[Event],
    events: Generator[Sequence[Event], None, None],
    environ: dict[str, Any],
    request_id: str,
) -> Iterator[bytes]:
    try:
        yield encode(first)
        written = time.monotonic()
        for batch in _while_connected(events, environ):
            if batch:
                yield encode(batch)
                written = time.monotonic()
            elif time.monotonic() - written > PING_INTERVAL:
                yield b": ping\n\n"
                written = time.monotonic()
    except ClientLeft:
        log.info("%s the client left in mid-stream", request_id)
    except GeneratorExit:  # the server noticed first
        log.info("%s the client left in mid-stream", request_id)
        raise
    except Exception:  # the stream's outermost edge: it must not end without a terminal event
        log.exception("%s the stream failed", request_id)
        body = error_body("The server failed. Its log says more.", "internal_error", request_id)
        yield encode([("error", body)])
    finally:
        events.close()


def encode(events: Iterable[Event]) -> bytes:
    """Return *events* as they are written; JSON in ASCII, for a lone surrogate has no UTF-8."""
    return "".join(
        f"{_id(*number)}event: {name}\ndata: {_json(data)}\n\n" for name, data, *number in events
    ).encode("ascii")


def _id(number: int | None = None) -> str:
    return "" if number is None else f"id: {number}\n"


def _while_connected(events: Iterable[Sequence[Event]], environ: dict[str, Any]) -> Iterator[Sequence[Event]]:
    for batch in events:
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
    except BlockingIOError:
        return False
    except OSError:
        return True

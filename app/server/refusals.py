"""The answers that need no view, in the same form as all errors."""

from __future__ import annotations

import errno
import json
import logging
import uuid
from dataclasses import dataclass
from http import HTTPStatus

from flask import Response
from waitress.utilities import Error

from app.errors import DiskFull, ServerBusy, ServiceError, server_failed
from app.openai_errors import openai_error, speaks_openai
from app.security import ANSWER_HEADERS
from app.server.answer import Answer
from app.server.head import MalformedRequest
from app.storage.json_file import file_failed

log = logging.getLogger(__name__)


class RequestTooSlow(ServiceError):
    """The client took too long to send its request."""

    status = HTTPStatus.REQUEST_TIMEOUT
    error_type = "request_timeout"


class HeadTooLarge(ServiceError):
    """The first line and the headers are too long."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    error_type = "request_header_fields_too_large"


@dataclass(frozen=True)
class Refusal:
    """A complete answer.

    :param status: code and phrase
    :param headers: all headers but those of the connection
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(cls, response: Response) -> Refusal:
        """Return the answer that the app gave."""
        return cls(response.status, response.headers.to_wsgi_list(), response.get_data())

    @classmethod
    def because(cls, error: ServiceError, path: str = "") -> Refusal:
        """Return the answer for *error*, and write it into the log."""
        request_id = uuid.uuid4().hex
        log.info("%s %s: %s", request_id, error.error_type, error.message)
        body = error.body(request_id)
        if speaks_openai(path):
            body = openai_error(body, error.status)
        headers = {"Content-Type": "application/json", "X-Request-ID": request_id, **ANSWER_HEADERS}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return cls(
            f"{error.status:d} {error.status.phrase}", [*headers.items()], json.dumps(body).encode("ascii")
        )


class ErrorAnswer(Answer):
    """Answers a request that the server refused, and closes the connection."""

    def execute(self) -> None:
        """Write the answer."""
        request = self.request
        refusal = request.refusal or Refusal.because(_of_waitress(request.error), request.path)
        self.status, self.response_headers = refusal.status, refusal.headers
        self.set_close_on_finish()
        self.content_length = len(refusal.body)
        self.write(b"" if request.command == "HEAD" else refusal.body)


def unstorable(exc: OSError) -> ServiceError:
    """Return the error for a body that cannot be stored while it arrives."""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull("There is no space to receive the body.", hint="Free some space in BACKEND_DATA_DIR.")
    return file_failed("The data folder", exc)


def too_many_bodies() -> ServiceError:
    """Return the error for a body that is beyond the limit of all bodies together."""
    return ServerBusy(
        "The server receives too many large bodies at once.",
        hint="Try again later, or raise BACKEND_MAX_BODIES.",
        retry_after=10,
    )


def too_many_connections() -> ServiceError:
    """Return the error for a client beyond the limit of connections."""
    return ServerBusy(
        "The server has too many open connections.",
        hint="Close other connections, or raise BACKEND_CONNECTIONS.",
        retry_after=5,
    )


def _of_waitress(error: Error | None) -> ServiceError:
    """Return our error for one of waitress."""
    code = error.code if error else HTTPStatus.INTERNAL_SERVER_ERROR
    if code == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return HeadTooLarge(
            "The first line and the headers are too long.", hint="At most 32 KB are accepted."
        )
    if code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return server_failed()
    return MalformedRequest("The request is not valid HTTP.")

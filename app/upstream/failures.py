"""Turn the failures of upstreams into our errors: HTTP statuses, error messages and lost connections.

Nothing here knows which library sent the request.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.config import is_loopback
from app.errors import (
    InvalidRequest,
    InvalidUpstreamKey,
    InvalidUpstreamResponse,
    NotFound,
    RateLimited,
    ServiceError,
    UpstreamBusy,
    UpstreamError,
    UpstreamIncomplete,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.upstream.limits import UnfitAnswer

_Exception = TypeVar("_Exception", bound=BaseException)

_MESSAGE_LIMIT = 1000  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_HALF = re.compile(r"[\ud800-\udfff]")  # a lone surrogate, which no log and no database takes
_NESTED = 4  # levels of an error's body in which its message is looked for

_Row = tuple[type[ServiceError], str, str]
"""The class of an error, its sentence and its hint."""

_KEY_REFUSED: _Row = (
    InvalidUpstreamKey,
    "{name} refuses the API key.",
    "Set a valid api_key with PATCH /api/providers/<id>.",
)
_NOT_FOUND: _Row = (NotFound, "{name} does not have what was asked for{said}", "")
_TOO_MANY: _Row = (
    RateLimited,
    "{name} allows no more requests for now{said}",
    "Wait and try again, or use another provider.",
)
_BUSY: _Row = (UpstreamBusy, "{name} cannot take the request now{said}", "Try again in a moment.")
_REJECTED: _Row = (
    UpstreamRejected,
    "{name} refuses the request{said}",
    "Check the provider's key, its account and what the model can do.",
)
_FAILED: _Row = (
    UpstreamError,
    "{name} failed with HTTP {status}{said}",
    "Its log may say more. Try again, or use another model.",
)

_REJECTIONS = {
    401: _KEY_REFUSED,
    404: _NOT_FOUND,
    429: _TOO_MANY,
    502: _BUSY,
    503: _BUSY,
    504: _BUSY,
    529: _BUSY,
}
"""By status; any other status is :data:`_REJECTED` below 500, else :data:`_FAILED`."""

_ASK_AGAIN = (RateLimited, UpstreamBusy)
"""The errors that tell the client when to try again."""


def rejection(
    name: str,
    status: int,
    message: str,
    *,
    details: dict[str, Any] | None = None,
    retry_after: float | None = None,
) -> ServiceError:
    """Return the error for an answer with an HTTP *status* that is no success.

    :param name: the upstream's name, for the message
    :param message: the upstream's error message; may be empty
    :param details: further details for the error
    :param retry_after: the seconds that the upstream asks to wait; only for the errors in :data:`_ASK_AGAIN`
    """
    if status < 400:
        return invalid_response(name, f"a redirect (HTTP {status}), which is not followed")
    kind, sentence, hint = _REJECTIONS.get(status, _REJECTED if status < 500 else _FAILED)
    said = f": {message}" if message else "."
    return kind(
        sentence.format(name=name, status=status, said=said),
        hint=hint,
        details={"upstream_status": status, **(details or {})},
        retry_after=retry_after if kind in _ASK_AGAIN else None,
    )


def unreachable(name: str, url: str, cause: BaseException, start_hint: str = "") -> UpstreamUnavailable:
    """Return the error for an upstream to which no connection can be made.

    :param start_hint: how to start the upstream on this machine; empty if that is unknown
    """
    host = urlsplit(url).hostname or ""
    causes = _causes(cause)
    if any(isinstance(exc, socket.gaierror | UnicodeError) for exc in causes):
        reason = "dns"
        message = f"{name} cannot be reached: the host name '{host}' is not known."
        hint = f"Check the spelling of '{host}', and this machine's network."
    elif any(isinstance(exc, ssl.SSLError) for exc in causes):
        reason = "tls"
        message = f"{name} at {url} cannot be reached: the TLS connection failed."
        hint = "Check whether base_url should begin with http:// and the server's certificate."
    else:
        reason = "connection_refused"
        message = f"{name} is not running at {url}: the connection was refused."
        hint = f"Check that {name} runs on '{host}' and accepts connections from this machine."
        if is_loopback(host):
            hint = start_hint or f"Start {name}, or set its base_url with PATCH /api/providers/<id>."
    return UpstreamUnavailable(message, hint=hint, details={"url": url, "reason": reason})


def timed_out(name: str, url: str, *, connected: bool = True) -> UpstreamTimeout:
    """Return the error for an upstream that did not answer in time.

    :param connected: whether the connection was made in time
    """
    if not connected:
        return UpstreamTimeout(
            f"{name} at {url} cannot be reached: no connection was made in time.",
            hint="Check the provider's base_url, this machine's network, and whether a firewall blocks it.",
            details={"url": url, "reason": "connect_timeout"},
        )
    return UpstreamTimeout(
        f"{name} at {url} did not answer in time.",
        hint="Check whether it is busy or still loading a model. "
        "To wait longer, raise `timeouts`: PUT /api/settings",
        details={"url": url},
    )


def cut_off(name: str) -> UpstreamIncomplete:
    """Return the error for an answer that ended before it was complete."""
    return UpstreamIncomplete(
        f"{name} closed the connection before its answer was complete.",
        hint="Look into its log, then try again. A model that runs out of memory is a common cause.",
    )


def invalid_response(
    name: str, what: str, *, hint: str = "", details: Mapping[str, Any] | None = None
) -> InvalidUpstreamResponse:
    """Return the error for an answer that is not what the upstream's API promises."""
    return InvalidUpstreamResponse(
        f"{name} gave an invalid response: {what}.",
        hint=hint or "Check that the provider's base_url is the address of that service, not of another one.",
        details=dict(details or {}),
    )


def unfit(name: str, exc: UnfitAnswer) -> InvalidUpstreamResponse:
    """Return the error for an answer that is not read any further."""
    return invalid_response(name, exc.what, hint=exc.hint, details=exc.details)


def lone_surrogate() -> InvalidRequest:
    """Return the error for a request with a lone surrogate, half of a UTF-16 pair: UTF-8 cannot encode it."""
    return InvalidRequest(
        "The messages hold an incomplete character (a lone surrogate), which cannot be sent.",
        hint="Remove the character, or replace it with U+FFFD.",
        details={"messages": ["Holds an incomplete character."]},
    )


def is_lone_surrogate(exc: Exception) -> bool:
    """Tell whether *exc* means a lone surrogate in a text; a faulty host name has another encoding."""
    return isinstance(exc, UnicodeEncodeError) and exc.encoding == "utf-8"


def was_cut(exc: BaseException) -> bool:
    """Tell whether *exc* means that the server closed the connection before it answered."""
    closed = ("RemoteDisconnected", "RemoteProtocolError", "BadStatusLine")
    return any(
        type(cause).__name__ in closed or isinstance(cause, ConnectionResetError) for cause in _causes(exc)
    )


def cause_of(exc: BaseException, kind: type[_Exception]) -> _Exception | None:
    """Return *exc* or the exception that it wraps, if it is one of *kind*; else None."""
    return next((cause for cause in _causes(exc) if isinstance(cause, kind)), None)


def _causes(exc: BaseException) -> list[BaseException]:
    """Return *exc* and all exceptions that it wraps: only the innermost may tell what failed."""
    found: list[BaseException] = []
    waiting: list[object] = [exc]
    while waiting:
        seen = waiting.pop()
        if isinstance(seen, BaseException) and seen not in found:
            found.append(seen)
            waiting += [seen.__cause__, seen.__context__, getattr(seen, "reason", None), *seen.args]
    return found


def error_message(body: object) -> str:
    """Return the message in an error's body, in OpenAI's form, Ollama's form or as plain text."""
    for _ in range(_NESTED):
        if isinstance(body, dict):
            inner = body.get("error", body)
            body = inner.get("message") if isinstance(inner, dict) else inner
    return body if isinstance(body, str) else ""


def clean(text: object, *secrets: str) -> str:
    """Return an upstream's error message in a form for clients: one short line without *secrets*."""
    line = _HALF.sub("\ufffd", _CONTROL.sub(" ", text if isinstance(text, str) else "")).strip()
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")  # before the cut, which could leave a part of the secret
    return line[:_MESSAGE_LIMIT]

"""What an upstream's failures mean: each becomes one of our errors here, whichever library met it."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from app.config import is_loopback
from app.errors import (
    InvalidRequest,
    InvalidUpstreamKey,
    InvalidUpstreamResponse,
    NotFound,
    RateLimited,
    UpstreamBusy,
    UpstreamError,
    UpstreamIncomplete,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

_MESSAGE_LIMIT = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def is_of_the_text(exc: Exception) -> bool:
    """Tell whether a text cannot be encoded; where it is a host name's fault, the encoding is another."""
    return isinstance(exc, UnicodeEncodeError) and exc.encoding == "utf-8"


def half_a_character() -> InvalidRequest:
    """Say that what is to be sent is no text."""
    return InvalidRequest(
        "The messages hold half a character (a lone surrogate), which cannot be sent.",
        hint="Leave it out, or replace it by U+FFFD.",
        details={"messages": ["Holds half a character."]},
    )


def timed_out(name: str, url: str, *, connected: bool = True) -> UpstreamTimeout:
    """Say that *name* did not answer in time."""
    if not connected:
        return UpstreamTimeout(
            f"{name} at {url} cannot be reached: no connection came about in time.",
            hint="Check the provider's base_url, this machine's network, and whether a firewall is between.",
            details={"url": url, "reason": "connect_timeout"},
        )
    return UpstreamTimeout(
        f"{name} at {url} did not answer in time.",
        hint="See whether it is busy or still loading a model; the waiting times are "
        "`timeouts` in PUT /api/settings.",
        details={"url": url},
    )


def cut_off(name: str) -> UpstreamIncomplete:
    """Say that the answer of *name* ended too early."""
    return UpstreamIncomplete(
        f"{name} closed the connection before its answer was complete.",
        hint="Its log tells why; a model that ran out of memory ends like this. Then try again.",
    )


def unreachable(name: str, url: str, cause: BaseException) -> UpstreamUnavailable:
    """Say that nothing answers at *url*, and how to get an answer there."""
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
        hint = _start_hint(name, host, urlsplit(url).port)
    return UpstreamUnavailable(message, hint=hint, details={"url": url, "reason": reason})


def reject(
    name: str, status: int, message: str, *, model: str = "", retry_after: float | None = None
) -> NoReturn:
    """Raise the error for an answer of HTTP *status*, whose text is *message* (may be empty)."""
    said = f": {message}" if message else "."
    details: dict[str, Any] = {"upstream_status": status}
    if model:
        details["model"] = model
    if status == 401:
        raise InvalidUpstreamKey(
            f"{name} refuses the API key.",
            hint="Set a valid api_key with PATCH /api/providers/<id>.",
            details=details,
        )
    if status == 429:
        raise RateLimited(
            f"{name} allows no more requests for now{said}",
            hint="Wait and try again, or use another provider.",
            details=details,
            retry_after=retry_after,
        )
    if status in {502, 503, 504, 529}:
        raise UpstreamBusy(
            f"{name} cannot take the request now{said}",
            hint="Try again in a moment.",
            details=details,
            retry_after=retry_after,
        )
    if status < 400:
        raise invalid_response(name, f"a redirect (HTTP {status}), which is not followed")
    if status == 404:
        raise NotFound(f"{name} does not have what was asked for{said}", details=details)
    if status < 500:
        hint = "Check the provider's key, its account and what the model can do."
        raise UpstreamRejected(f"{name} refuses the request{said}", hint=hint, details=details)
    hint = "Its log may say more. Try again, or use another model."
    raise UpstreamError(f"{name} failed with HTTP {status}{said}", hint=hint, details=details)


def invalid_response(name: str, what: str) -> InvalidUpstreamResponse:
    """Say that *name* answered something else than its API promises."""
    return InvalidUpstreamResponse(
        f"{name} gave an invalid response: {what}.",
        hint="Check that the provider's base_url points to that service and not to another.",
    )


def clean(text: object, *secrets: str) -> str:
    """Return an upstream's own error text, fit for a client: one line, bounded, no secret."""
    line = _CONTROL.sub(" ", text if isinstance(text, str) else "").strip()
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")  # before the cut, which could leave a part of it
    return line[:_MESSAGE_LIMIT]


def _causes(exc: BaseException) -> list[BaseException]:
    """Return the exception and what caused it: the kinds of failure differ in there."""
    found: list[BaseException] = []
    waiting: list[object] = [exc]
    while waiting:
        seen = waiting.pop()
        if isinstance(seen, BaseException) and seen not in found:
            found.append(seen)
            waiting += [seen.__cause__, seen.__context__, getattr(seen, "reason", None), *seen.args]
    return found


def was_cut(exc: BaseException) -> bool:
    """Tell whether a connection that was there was closed before the answer came."""
    closed = ("RemoteDisconnected", "RemoteProtocolError", "BadStatusLine")
    return any(
        type(cause).__name__ in closed or isinstance(cause, ConnectionResetError) for cause in _causes(exc)
    )


def _start_hint(name: str, host: str, port: int | None) -> str:
    if not is_loopback(host):
        return f"Check that {name} runs on '{host}' and accepts connections from this machine."
    if name == "Ollama" and Path("/.dockerenv").exists():
        return (
            "In a container, localhost is the container itself. For an Ollama in it, start it there, or "
            "start this program again with `make run`. For one outside, set base_url to "
            f"http://host.docker.internal:{port or 11434}/v1, run the container with "
            "--add-host=host.docker.internal:host-gateway and Ollama with OLLAMA_HOST=0.0.0.0."
        )
    if name == "Ollama":
        return "Start it with `ollama serve`, or this program with `make run`, which finds or starts one."
    return f"Start {name}, or set its base_url with PATCH /api/providers/<id>."


def error_message(body: object) -> str:
    """Return the message in an error's body: OpenAI's shape, Ollama's, or a bare text."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        return error_message(inner.get("message")) if isinstance(inner, dict) else error_message(inner)
    return body if isinstance(body, str) else ""

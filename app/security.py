"""Who may talk to the server: every request passes here first."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue

from app.body_limits import accepted_by
from app.config import Config, is_loopback
from app.errors import ServiceError

_PUBLIC = ("/api/health", "/api/docs", "/api/openapi.json")


class HostNotAllowed(ServiceError):
    """The Host header names another site: a DNS rebinding page sends such."""

    status = HTTPStatus.FORBIDDEN
    error_type = "host_not_allowed"


class PeerNotAllowed(ServiceError):
    """A client on another machine, and the server has no key."""

    status = HTTPStatus.FORBIDDEN
    error_type = "peer_not_allowed"


class OriginNotAllowed(ServiceError):
    """A page of another site sends the request."""

    status = HTTPStatus.FORBIDDEN
    error_type = "origin_not_allowed"


class MissingKey(ServiceError):
    """The server wants its API key."""

    status = HTTPStatus.UNAUTHORIZED
    error_type = "unauthorized"


class NotJson(ServiceError):
    """The body is not declared as JSON."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    error_type = "unsupported_media_type"


def protect(app: Flask, config: Config) -> None:
    """Check each request's host, origin, key and body, in this order."""

    def check() -> ResponseReturnValue | None:
        _check_peer(config)
        _check_host(config)
        _check_origin(config)
        _check_key(config)
        _check_body(config)
        return None

    app.before_request(check)


def _check_peer(config: Config) -> None:
    """Serve other machines only with a key, whatever server this app runs in."""
    if not config.api_key and request.remote_addr and not is_loopback(request.remote_addr):
        raise PeerNotAllowed(
            "This server has no key, so it serves its own machine only.",
            hint="Start it with BACKEND_API_KEY set to a long random text.",
        )


def _check_host(config: Config) -> None:
    host = _hostname(f"//{request.host}")
    if host in {h.lower() for h in config.allowed_hosts} or _is_served(host, config):
        return
    raise HostNotAllowed(
        f"This server is not known as '{host[:100]}'.",
        hint=f"Call it by its address, or allow the name with BACKEND_ALLOWED_HOSTS={host[:100]}",
    )


def _is_served(host: str, config: Config) -> bool:
    if is_loopback(host):
        return True
    if config.is_loopback:
        return False
    if host in {config.host.lower(), socket.gethostname().lower()}:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return config.host in {"0.0.0.0", "::"}  # noqa: S104  # every address of this machine


def _check_origin(config: Config) -> None:
    origin = request.headers.get("Origin")
    if origin is None or origin in config.allowed_origins:
        return
    if origin in {f"http://{request.host}", f"https://{request.host}"}:
        return
    raise OriginNotAllowed(
        "Pages of other sites may not use this server.",
        hint=f"Allow the page's origin with BACKEND_ALLOWED_ORIGINS={origin[:100]}",
    )


def _check_key(config: Config) -> None:
    if not config.api_key or request.method == "OPTIONS" or request.path.startswith(_PUBLIC):
        return
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = token if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
    if not hmac.compare_digest(given.strip().encode(), config.api_key.encode()):
        raise MissingKey(
            "This server wants its API key.",
            hint="Send the header `Authorization: Bearer <BACKEND_API_KEY>`.",
        )


def _check_body(config: Config) -> None:
    """Refuse what is not JSON, such as a form: a page of another site can send one without a preflight."""
    accepted = accepted_by(current_app.view_functions.get(request.endpoint or ""))
    is_upload = bool(accepted.file_type) and request.mimetype == accepted.file_type
    request.max_content_length = config.max_upload if is_upload else accepted.limit  # checked when it is read
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    expects_json = request.method in {"POST", "PUT", "PATCH"} and not is_upload
    if has_body and expects_json and not request.is_json:
        raise NotJson(
            "The body must be JSON and say so.",
            hint="Send the header `Content-Type: application/json`.",
        )


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""

"""Check each request before its view: the client's address, host, origin, API key, and type of body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import socket
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response, current_app, request
from flask.globals import request_ctx
from werkzeug.exceptions import RequestEntityTooLarge

from app.body_limits import BODY_LIMIT, accepted_by
from app.config import Config, is_loopback
from app.errors import ServiceError

ANSWER_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""The headers of every answer: a browser does not guess its type, run it, or show it in another page."""

_PUBLIC = ("/api/health", "/api/docs", "/api/openapi.json")


# The headers that proxies add. Browsers and curl do not send them, and the pages of other sites may not.
_FROM_A_PROXY = {
    f"HTTP_{name.upper().replace('-', '_')}"
    for name in (
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        *(
            f"X-Forwarded-{what}"
            for what in ("For", "Host", "Port", "Prefix", "Proto", "Scheme", "Server", "Ssl")
        ),
    )
}


class HostNotAllowed(ServiceError):
    """The Host header names another site, as in a DNS rebinding attack."""

    status = HTTPStatus.FORBIDDEN
    error_type = "host_not_allowed"


class PeerNotAllowed(ServiceError):
    """The client is on another machine, and the server has no key."""

    status = HTTPStatus.FORBIDDEN
    error_type = "peer_not_allowed"


class KeyRequired(ServiceError):
    """The request came through a proxy, so from anywhere, and the server has no key."""

    status = HTTPStatus.FORBIDDEN
    error_type = "key_required"


class OriginNotAllowed(ServiceError):
    """The request comes from a page of another site."""

    status = HTTPStatus.FORBIDDEN
    error_type = "origin_not_allowed"


class MissingKey(ServiceError):
    """The request lacks the server's API key, or has a wrong one."""

    status = HTTPStatus.UNAUTHORIZED
    error_type = "unauthorized"


class NotJson(ServiceError):
    """The body is not declared as JSON."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    error_type = "unsupported_media_type"


def protect(app: Flask, config: Config) -> None:
    """Check the peer, host, origin, key and body of each request, in this order."""

    def check() -> None:
        sent = request_ctx.request  # looked up once: flask's `request` looks it up each time
        for checked in (_check_peer, _check_host, _check_origin, _check_key, _check_body):
            checked(sent, config)

    app.before_request(check)


def examine(app: Flask, environ: dict[str, Any]) -> Response | int:
    """Check a request before its body is read, as the app would before its view.

    :param environ: the WSGI environment; its CONTENT_LENGTH is what the body has at least
    :return: the answer that refuses the request; or the largest body, in bytes, that its view accepts
    """
    with app.request_context(environ):
        try:
            answer = app.preprocess_request()
        except Exception as exc:  # noqa: BLE001  # the app's handlers log it
            answer = app.handle_user_exception(exc)
        if answer is None and request.routing_exception is not None:
            answer = app.handle_user_exception(request.routing_exception)
        if answer is None:
            return request.max_content_length or BODY_LIMIT
        return app.process_response(app.make_response(answer))


def with_own_scripts(page: Response) -> Response:
    """Let a browser run the scripts of the API docs: files of this server, and what is in *page* itself."""
    inline = re.findall(r"<script>(.*?)</script>", page.get_data(as_text=True), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    policy = [
        "default-src 'none'",
        " ".join(["script-src 'self'", *(f"'sha256-{digest}'" for digest in digests)]),
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles of its elements
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    page.headers.extend({**ANSWER_HEADERS, "Content-Security-Policy": "; ".join(policy)})
    return page


def _check_peer(request: Request, config: Config) -> None:
    """Refuse clients on other machines when there is no key.

    ``backend_server.py`` refuses to listen for them; gunicorn and other WSGI servers do not. A proxy on this
    machine speaks for all whom it serves.
    """
    if config.api_key:
        return
    if not _FROM_A_PROXY.isdisjoint(request.environ):
        raise KeyRequired(
            "This server has no key, so it serves no proxy: whoever reaches the proxy could use it.",
            hint="Start it with BACKEND_API_KEY set to a long random text: see docs/deployment.md.",
        )
    if request.remote_addr and not is_loopback(request.remote_addr):
        raise PeerNotAllowed(
            "This server has no key, so it serves its own machine only.",
            hint="Start it with BACKEND_API_KEY set to a long random text.",
        )


def _check_host(request: Request, config: Config) -> None:
    host = _hostname(f"//{request.host}")
    if _is_served(host, config) or host in {h.lower() for h in config.allowed_hosts}:
        return
    if not host:
        raise HostNotAllowed(
            "The Host header is no host name.", hint="Send the name or address of this server."
        )
    raise HostNotAllowed(
        f"This server is not known as '{host[:100]}'.",
        hint=f"Call it by its address, or allow the name with BACKEND_ALLOWED_HOSTS={host[:100]}",
    )


def _is_served(host: str, config: Config) -> bool:
    """Tell whether *host* is this machine: its name, or an address of it on which the server listens."""
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
    # An attacker's page can rebind a name, never an address. So here any address is good.
    return config.host in {"0.0.0.0", "::"}  # noqa: S104  # every address of this machine


def _check_origin(request: Request, config: Config) -> None:
    """Refuse the requests of other sites' pages.

    A browser names the origin of the page in all requests but plain GETs, and tells of these at least whether
    the page is of another site. A link to a public page is harmless: the other page does not see that page.
    """
    origin = request.headers.get("Origin")
    if origin in config.allowed_origins:
        return
    is_own = origin in {None, f"http://{request.host}", f"https://{request.host}"}  # https: a proxy with TLS
    is_of_ours = request.headers.get("Sec-Fetch-Site", "none") in {"none", "same-origin"}
    if is_own and (is_of_ours or _is_link(request)):
        return
    # An origin such as `null` is that of any page without one, so the hint does not offer it.
    named = origin if origin and origin.startswith(("http://", "https://")) else "http://..."
    raise OriginNotAllowed(
        "Pages of other sites may not use this server.",
        hint=f"Allow the page's origin with BACKEND_ALLOWED_ORIGINS={named[:100]}",
    )


def _is_link(request: Request) -> bool:
    """Tell whether the request opens a public page in its own window."""
    sent = request.headers
    is_opened = sent.get("Sec-Fetch-Mode") == "navigate" and sent.get("Sec-Fetch-Dest") == "document"
    return is_opened and request.method == "GET" and (request.path == "/" or request.path.startswith(_PUBLIC))


def _check_key(request: Request, config: Config) -> None:
    # Browsers send a CORS preflight (OPTIONS) without any key.
    if request.method == "OPTIONS" or request.path.startswith(_PUBLIC):
        return
    if not has_key(config):
        raise MissingKey(
            "The request has no API key for this server, or a wrong one.",
            hint="Send the header `Authorization: Bearer <BACKEND_API_KEY>`.",
        )


def has_key(config: Config) -> bool:
    """Tell whether the request has the server's key, or the server has none."""
    if not config.api_key:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = token if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
    return hmac.compare_digest(given.strip().encode(), config.api_key.encode())


def _check_body(request: Request, config: Config) -> None:
    """Refuse a body that is not JSON, or too large; set the limit for a body whose size is not known yet.

    Browsers let a page of any site send a form without a preflight; they do not let it send JSON.
    """
    accepted = accepted_by(current_app.view_functions.get(request.endpoint or ""))
    is_upload = bool(accepted.file_type) and request.mimetype == accepted.file_type
    limit = request.max_content_length = config.max_upload if is_upload else accepted.limit
    size = request.content_length or 0
    has_body = bool(size) or "Transfer-Encoding" in request.headers
    expects_json = request.method in {"POST", "PUT", "PATCH"} and not is_upload
    if has_body and expects_json and not request.is_json:
        raise NotJson(
            "The body must be JSON, and its Content-Type must be application/json.",
            hint="Send the header `Content-Type: application/json`.",
        )
    if size > limit:
        raise RequestEntityTooLarge


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""

"""The Flask application: checks of origin and host, error answers, and the routes."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from app.engine.routes import wire
from app.engine.routes.chat import chat_routes
from app.engine.routes.embed import embed_routes
from app.engine.routes.native import native_routes
from app.engine.routes.openai_api import openai_routes
from app.engine.runners.child import LoadError
from app.engine.runners.relay import DIED
from app.engine.runners.scheduler import ClientLeftError, RunnerDiedError

if TYPE_CHECKING:
    from app.engine.routes.wire import ApiError, Services

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_APP_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_ALLOWED_HEADERS = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With"
_ALLOWED_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_CLIENT_CLOSED = 499  # nginx's status for a closed connection, as in Ollama's log; no client reads it


def create_app(services: Services, *, loopback: bool = True) -> Flask:
    """Build the application; *loopback* says that it listens on a loopback address."""
    app = Flask(__name__, static_folder=None)
    app.url_map.strict_slashes = False
    _configure_guards(app, loopback=loopback)
    _configure_errors(app)
    for blueprint in (
        native_routes(services),
        chat_routes(services),
        embed_routes(services),
        openai_routes(services),
    ):
        app.register_blueprint(blueprint)
    return app


def _configure_guards(app: Flask, *, loopback: bool) -> None:
    @app.before_request
    def check_origin_and_host() -> Response | None:
        origin = request.headers.get("Origin")
        if origin and origin.partition("://")[2] != request.host:
            if not _is_allowed_origin(origin):
                return wire.empty_response(403)
            if request.method == "OPTIONS":
                return _preflight()
        if loopback and not _is_allowed_host(request.headers.get("Host", "")):
            return wire.empty_response(403)
        return None

    @app.after_request
    def allow_origin(response: Response) -> Response:
        origin = request.headers.get("Origin")
        if origin and response.status_code != 403 and _is_allowed_origin(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.vary.add("Origin")
        return response


def _preflight() -> Response:
    """Answer a browser's CORS preflight as Ollama does (``cors_preflight``)."""
    response = wire.empty_response(204)
    response.headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
    response.headers["Access-Control-Allow-Methods"] = _ALLOWED_METHODS
    response.headers["Access-Control-Max-Age"] = "43200"
    return response


def _is_allowed_origin(origin: str) -> bool:
    """Allow pages and apps of this machine, and the origins in OLLAMA_ORIGINS."""
    if origin in os.environ.get("OLLAMA_ORIGINS", "").split(","):
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in _APP_SCHEMES or (
        parts.scheme in {"http", "https"} and parts.hostname in {"localhost", "127.0.0.1", "0.0.0.0"}  # noqa: S104
    )


def _is_allowed_host(header: str) -> bool:
    """Refuse other host names, as a DNS rebinding attack sends them (Ollama's allowedHostsMiddleware)."""
    host = ""
    try:
        host = (urlsplit(f"//{header}").hostname or "").lower()
        address = ipaddress.ip_address(host)
    except ValueError:
        known = {"localhost", socket.gethostname().lower()}
        return not header or host in known or host.endswith(_LOCAL_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_unspecified


def _configure_errors(app: Flask) -> None:
    @app.errorhandler(NotFound)
    def not_found(_: NotFound) -> Response:
        return Response("404 page not found", 404, content_type="text/plain")

    @app.errorhandler(MethodNotAllowed)
    def method_not_allowed(exc: MethodNotAllowed) -> Response:
        response = Response("405 method not allowed", 405, content_type="text/plain")
        methods = sorted(set(exc.valid_methods or ()) - {"OPTIONS"}, reverse=True)
        response.headers["Allow"] = ", ".join(sorted(methods, key=lambda name: name != "HEAD"))
        return response

    @app.errorhandler(wire.ApiError)
    def api_error(exc: ApiError) -> Response:
        return wire.json_response({"error": exc.message}, exc.status)

    @app.errorhandler(LoadError)
    def load_error(exc: LoadError) -> Response:
        return wire.json_response({"error": str(exc)}, 500)

    @app.errorhandler(RunnerDiedError)
    def runner_died(_: RunnerDiedError) -> Response:
        return wire.json_response({"error": DIED}, 500)

    @app.errorhandler(ClientLeftError)
    def client_left(_: ClientLeftError) -> Response:
        return wire.empty_response(_CLIENT_CLOSED)

    @app.errorhandler(OSError)
    def disk_failed(exc: OSError) -> Response:
        return wire.json_response({"error": wire.disk_failed(exc)}, 500)

    @app.errorhandler(HTTPException)
    def refused(exc: HTTPException) -> Response:
        return wire.json_response({"error": exc.description or exc.name}, exc.code or 500)

    @app.errorhandler(500)
    def fault(_: Exception) -> Response:  # Flask has logged the traceback
        return wire.json_response({"error": wire.FAULT}, 500)

"""The backend in front of local language models: :func:`create_app` puts it together.

A request passes :mod:`app.security`, a view in :mod:`app.api` (its body checked by :mod:`app.schemas`), one
service in :mod:`app.services`, and the upstream; the answer comes back through the schema.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from importlib import import_module

from flask import Flask, Response, g, request

from app.config import Config
from app.version import __version__

log = logging.getLogger(__name__)

_RESOURCES = (
    "chat",
    "embeddings",
    "openai_v1",
    "models",
    "running",
    "creations",
    "pulls",
    "updates",
    "disk",
    "conversations",
    "usage",
    "providers",
    "settings",
    "health",
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


_SPEC = {
    "info": {
        "description": "The models of Ollama, and chats with them and with OpenAI-compatible providers. "
        "Every failure answers with the body `Error`; its `error_type` is listed in docs/errors.md."
    },
    "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    "security": [{"key": []}, {}],  # needed where the server was started with BACKEND_API_KEY
}

# The steps import what they need themselves: the engine is a program of its own below this package, and
# starts without any of it.


def create_app(config: Config | None = None) -> Flask:
    """Return the WSGI application.

    :raises app.config.ConfigError: for an environment that cannot be used
    """
    app = Flask(__name__, static_folder=None)
    config = config or Config.from_env()
    _configure_services(app, config)
    _configure_requests(app)
    _configure_security(app, config)
    _configure_api(app)
    _configure_commands(app)
    return app


def _configure_services(app: Flask, config: Config) -> None:
    from app.container import Services

    app.extensions["services"] = Services(config)


def _configure_requests(app: Flask) -> None:
    """Give each request an id and a line in the log."""
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's own provider has it

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        g.started = time.monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        milliseconds = (time.monotonic() - g.started) * 1000
        path = request.path.encode("unicode_escape").decode("ascii")  # no forged lines in the log
        log.info(
            "%s %s %s %d %.1f ms",
            g.request_id,
            request.method,
            path,
            response.status_code,
            milliseconds,
        )
        return response


def _configure_security(app: Flask, config: Config) -> None:
    from app import security

    if config.allowed_origins:
        from flask_cors import CORS

        CORS(app, origins=list(config.allowed_origins), expose_headers=["X-Request-ID"])
    security.protect(app, config)


def _configure_api(app: Flask) -> None:
    from flask import Blueprint
    from swagger_ui_bundle import swagger_ui_path

    from app.api.base import Api

    assets = Blueprint(
        "swagger_ui",
        __name__,
        static_folder=str(swagger_ui_path),
        static_url_path="/api/docs/assets",
    )
    app.register_blueprint(assets)
    app.config.update(
        API_TITLE="Ollama backend",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/api",
        OPENAPI_JSON_PATH="openapi.json",
        OPENAPI_SWAGGER_UI_PATH="/docs",
        OPENAPI_SWAGGER_UI_URL="/api/docs/assets/",
        API_SPEC_OPTIONS=_SPEC,
    )
    app.add_url_rule("/", "root", redirect_to="/api/docs")
    api = Api(app)
    for resource in _RESOURCES:
        api.register_blueprint(import_module(f"app.api.{resource}").blp)


def _configure_commands(app: Flask) -> None:
    from app import cli, cli_chat

    app.cli.add_command(cli.models)
    app.cli.add_command(cli.worker)
    app.cli.add_command(cli_chat.chat)

"""Build the Flask application."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flask import Blueprint, Flask, Response
from flask_cors import CORS
from swagger_ui_bundle import swagger_ui_path

from app import security
from app.api import (
    chat,
    conversations,
    creations,
    disk,
    embeddings,
    health,
    models,
    openai_v1,
    providers,
    pulls,
    running,
    settings,
    updates,
    usage,
)
from app.api.base import App, add_request_hooks
from app.api.description import Api
from app.cli import COMMANDS
from app.config import Config, StartFailed
from app.container import Services
from app.errors import ServiceError
from app.version import __version__

# The API docs show the resources in this order.
_RESOURCES = (
    chat,
    embeddings,
    openai_v1,
    models,
    running,
    creations,
    pulls,
    updates,
    disk,
    conversations,
    usage,
    providers,
    settings,
    health,
)

_DOCS_PAGE = "api-docs.openapi_swagger_ui"  # flask-smorest's endpoint

_SPEC = {
    "info": {
        "description": "The models of Ollama, and chats with them and with OpenAI-compatible providers. "
        "Every failure answers with the body `Error`; its `error_type` is listed in docs/errors.md."
    },
    "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    "security": [{"key": []}, {}],  # {}: a server without BACKEND_API_KEY needs no key
}


def create_app(config: Config | None = None) -> Flask:
    """Return the WSGI application.

    :raises StartFailed: when a setting, the data folder or the database cannot be used
    """
    config = config or Config.from_env()
    app = App("app", static_folder=None)
    app.extensions["services"] = _make_services(config)
    add_request_hooks(app)  # before protect(): a refused request has an id, too
    _allow_origins(app, config)
    security.protect(app, config)
    _serve_docs(app)
    _add_resources(app)
    for command in COMMANDS:
        app.cli.add_command(command)
    return app


def _make_services(config: Config) -> Services:
    try:
        return Services(config)
    except ServiceError as exc:
        reason = f"{exc.message}\n{exc.hint}"
    except (OSError, ValueError) as exc:
        said = getattr(exc, "strerror", None) or type(exc).__name__
        reason = (
            f"A file cannot be used: {said}.\nSee BACKEND_DATA_DIR "
            f"and BACKEND_PROVIDERS_FILE ({config.providers_file}) in docs/configuration.md."
        )
    raise StartFailed(f"{reason}\nThe data folder is {config.data_dir.absolute()}.")


def _allow_origins(app: Flask, config: Config) -> None:
    """Send the CORS headers that let pages of the allowed origins read answers."""
    if config.allowed_origins:
        CORS(app, origins=list(config.allowed_origins), expose_headers=["X-Request-ID"])


def _serve_docs(app: Flask) -> None:
    """Serve the API docs with local assets, so that they work offline; redirect ``/`` to them."""
    assets = Blueprint(
        "swagger_ui",
        __name__,
        static_folder=str(swagger_ui_path),
        static_url_path="/api/docs/assets",
    )
    app.register_blueprint(assets)
    app.add_url_rule("/", "root", redirect_to="/api/docs")


def _add_resources(app: Flask) -> None:
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default JSON provider has it
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
    api = Api(app)
    for resource in _RESOURCES:
        api.register_blueprint(resource.blp)
    docs = cast("Callable[[], str]", app.view_functions[_DOCS_PAGE])
    app.view_functions[_DOCS_PAGE] = lambda: security.with_own_scripts(Response(docs(), mimetype="text/html"))

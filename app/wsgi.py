"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from app import create_app, logs
from app.config import Config, ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_FOR_GOOD = 3  # the exit status at which gunicorn does not start the process again


def _read_config() -> Config:
    """Return the settings; end the process with a sentence if they cannot be used."""
    try:
        config = Config.from_env()
        config.check_exposure()
    except ConfigError as exc:
        sys.stderr.write(f"Error: {exc}\n")
        sys.exit(_FOR_GOOD)
    return config


def _at_the_root(wsgi_app: WSGIApplication) -> WSGIApplication:
    """Undo the prefix of the path that a client names: gunicorn takes it from a header SCRIPT_NAME.

    A prefix from the environment variable stays.
    """
    own = os.environ.get("SCRIPT_NAME", "")

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        named = environ.get("SCRIPT_NAME", "")
        if named != own:
            path = unquote_to_bytes(named.encode("latin-1")).decode("latin-1") + environ["PATH_INFO"]
            environ = {**environ, "SCRIPT_NAME": own, "PATH_INFO": path.removeprefix(own)}
        return wsgi_app(environ, start_response)

    return serve


_config = _read_config()
logs.configure(_config)
app = create_app(_config)
app.wsgi_app = _at_the_root(app.wsgi_app)  # type: ignore[assignment,method-assign]

"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``."""

from __future__ import annotations

import logging
import sys

from app import create_app, logs
from app.config import Config, StartFailed

_CANNOT_LOAD = 4  # gunicorn's exit code for an app that does not load; with others it would try without end

try:
    _config = Config.from_env()
    logs.configure(_config)
    app = create_app(_config)
except StartFailed as exc:
    logging.critical("%s", " ".join(exc.message.split()))  # noqa: LOG015 - no logger may be set up yet
    sys.exit(_CANNOT_LOAD)

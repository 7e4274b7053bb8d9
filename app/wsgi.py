"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``."""

from __future__ import annotations

from app import create_app, logs
from app.config import Config

_config = Config.from_env()
logs.configure(_config)
app = create_app(_config)

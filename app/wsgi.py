"""The application for a WSGI server: ``gunicorn -k gthread app.wsgi:app``."""

from __future__ import annotations

from app import create_app, logs
from app.settings import Settings

_settings = Settings.from_env()
logs.configure(_settings)
app = create_app(_settings)

"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``."""

from __future__ import annotations

import logging
import sys

import click
from flask import Flask

from app import create_app, logs
from app.config import Config, ConfigError

_BOOT_FAILED = 3  # when a worker ends with it, gunicorn stops and does not start another one


def _make_app() -> Flask:
    try:
        config = Config.from_env()
        logs.configure(config)
        return create_app(config)
    except (ConfigError, click.ClickException) as exc:
        logging.getLogger(__name__).critical("%s", exc)
    sys.exit(_BOOT_FAILED)


app = _make_app()

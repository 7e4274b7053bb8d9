"""The services of the current app, for its views and commands."""

from __future__ import annotations

from typing import cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.container import Services


def _services() -> Services:
    return cast("Services", current_app.extensions["services"])


services = cast("Services", LocalProxy(_services))

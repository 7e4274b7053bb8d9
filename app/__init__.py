"""The backend in front of local language models.

A request passes :mod:`app.security`, a view in :mod:`app.api` (its body checked by :mod:`app.schemas`), one
service in :mod:`app.services`, and the upstream; the answer comes back through the schema.
:mod:`app.factory` puts these together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Config


def create_app(config: Config | None = None) -> Flask:
    """Return the WSGI application.

    :raises app.config.ConfigError: for an environment that cannot be used
    """
    # Imported by the call: the engine's processes import this package too, and start without Flask.
    from app import factory

    return factory.create_app(config)

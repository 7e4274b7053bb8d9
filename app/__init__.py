"""The backend in front of local language models.

:mod:`app.security` checks each request. A view in :mod:`app.api` loads its body with a schema from
:mod:`app.schemas` and calls one service in :mod:`app.services`, which asks the upstream. The schema also
writes the answer. :mod:`app.factory` builds the application from these parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Config


def create_app(config: Config | None = None) -> Flask:
    """Return the WSGI application.

    :raises app.config.StartFailed: when a setting, the data folder or the database cannot be used
    """
    # Imported here and not above: the engine's processes import this package too, and do not need Flask.
    from app import factory

    return factory.create_app(config)

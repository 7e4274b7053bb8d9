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

    :raises click.ClickException: when the environment holds an invalid setting, or the data folder cannot be
        used; ``flask`` and ``backend_server.py`` print its sentence
    """
    # Imported here and not above: the engine's processes import this package too, and do not need Flask.
    import click

    from app import factory
    from app.config import ConfigError
    from app.errors import ServiceError

    try:
        return factory.create_app(config)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
    except ServiceError as exc:
        raise click.ClickException(f"{exc.message}\n{exc.hint or ''}".rstrip()) from exc

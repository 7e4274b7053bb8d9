"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``.

Each process that serves looks after pulls, too. With ``--preload`` gunicorn's master imports this module; it
does not serve, and forks the processes that do.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from app import create_app, logs
from app.config import Config, StartFailed
from app.container import Services

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_CANNOT_LOAD = 4  # gunicorn's exit code for an app that does not load; with others it would try without end


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


def _is_in_master() -> bool:
    """Tell whether gunicorn's master imports this module, and not one of its workers."""
    callers = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(None)}
    return "gunicorn.arbiter" in callers and "gunicorn.workers.base" not in callers


def _look_after_pulls(services: Services) -> None:
    if not _is_in_master():
        services.jobs.start()
        return
    master = os.getpid()

    def start() -> None:
        if os.getppid() == master:  # and not in a process that a worker forks
            services.jobs.start()

    # Two processes must not use one connection: the master keeps none when it forks.
    os.register_at_fork(before=services.database.close, after_in_child=start)


try:
    _config = Config.from_env()
    _config.check_exposure()
    logs.configure(_config)
    app = create_app(_config)
except StartFailed as exc:
    logging.critical("%s", " ".join(exc.message.split()))  # noqa: LOG015 - no logger may be set up yet
    sys.exit(_CANNOT_LOAD)

_look_after_pulls(app.extensions["services"])
app.wsgi_app = _at_the_root(app.wsgi_app)  # type: ignore[assignment,method-assign]

"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``.

Each process that serves looks after pulls, too. With ``--preload`` gunicorn's master imports this module; it
does not serve, and forks the processes that do.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback

from app import create_app, logs
from app.config import Config, StartFailed
from app.container import Services

_CANNOT_LOAD = 4  # gunicorn's exit code for an app that does not load; with others it would try without end

try:
    _config = Config.from_env()
    logs.configure(_config)
    app = create_app(_config)
except StartFailed as exc:
    logging.critical("%s", " ".join(exc.message.split()))  # noqa: LOG015 - no logger may be set up yet
    sys.exit(_CANNOT_LOAD)


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


_look_after_pulls(app.extensions["services"])

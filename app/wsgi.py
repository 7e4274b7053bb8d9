"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``.

gunicorn imports this module in each worker, after it has installed its handlers of signals. With
``--preload`` its master imports it, which does not serve, and forks the processes that do.
"""

from __future__ import annotations

import logging
import sys

from app import create_app, logs
from app.config import Config, StartFailed
from app.interpreter import keep_what_is_loaded
from app.processes import look_after_pulls, stop_at_signals, without_oddities

_CANNOT_LOAD = 4  # gunicorn's exit code for an app that does not load; with others it would try without end

try:
    _config = Config.from_env()
    _config.check_exposure()
    logs.configure(_config)
    app = create_app(_config)
except StartFailed as exc:
    logging.critical("%s", " ".join(exc.message.split()))  # noqa: LOG015 - no logger may be set up yet
    sys.exit(_CANNOT_LOAD)

keep_what_is_loaded()
stop_at_signals(app.extensions["services"])
look_after_pulls(app.extensions["services"])
app.wsgi_app = without_oddities(app.wsgi_app)  # type: ignore[assignment,method-assign]

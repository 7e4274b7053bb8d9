"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``.

gunicorn imports this module in each worker, after it has installed its handlers of signals. With
``--preload`` it imports this before: then the workers do not learn that they are being stopped.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
from types import FrameType

from app import create_app, logs
from app.config import Config, StartFailed
from app.container import Services
from app.stopping import limit_stop

_CANNOT_LOAD = 4  # gunicorn's exit code for an app that does not load; with others it would try without end
_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT")  # SIGABRT: to a worker that hangs


def _stop_at_signals(services: Services) -> None:
    """Let each signal stop *services*, before the handler that is there now."""
    if threading.current_thread() is not threading.main_thread():  # only there a handler can be set
        return
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None:
            _stop_first(services, number)


def _stop_first(services: Services, number: int) -> None:
    before = signal.getsignal(number)
    if not callable(before):
        return

    def handle(number: int, frame: FrameType | None) -> None:
        services.stop()
        before(number, frame)

    signal.signal(number, handle)


try:
    _config = Config.from_env()
    logs.configure(_config)
    app = create_app(_config)
except StartFailed as exc:
    logging.critical("%s", " ".join(exc.message.split()))  # noqa: LOG015 - no logger may be set up yet
    sys.exit(_CANNOT_LOAD)
_stop_at_signals(app.extensions["services"])
limit_stop()
atexit.register(app.extensions["services"].close)

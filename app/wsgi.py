"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``.

gunicorn imports this module in each worker, after it has installed its handlers of signals. Each process that
serves looks after pulls, too. With ``--preload`` gunicorn's master imports this module. It does not serve; it
forks the workers, which then do not learn that they are being stopped.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from app import create_app, logs
from app.config import Config, StartFailed
from app.container import Services
from app.stopping import limit_stop

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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
_stop_at_signals(app.extensions["services"])
limit_stop()
atexit.register(app.extensions["services"].close)
_look_after_pulls(app.extensions["services"])
app.wsgi_app = _at_the_root(app.wsgi_app)  # type: ignore[assignment,method-assign]

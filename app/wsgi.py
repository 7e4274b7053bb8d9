"""The application for another WSGI server: ``gunicorn -k gthread app.wsgi:app``.

gunicorn imports this module in each worker, after it has installed its handlers of signals. With
``--preload`` it imports this before: then the workers do not learn that they are being stopped.
"""

from __future__ import annotations

import atexit
import signal
import threading
from types import FrameType

from app import create_app, logs
from app.config import Config
from app.container import Services
from app.stopping import limit_stop

_config = Config.from_env()
logs.configure(_config)
app = create_app(_config)
_services: Services = app.extensions["services"]


def _stop_first(number: int) -> None:
    """Let the signal *number* stop the services, before the handler that is there now."""
    before = signal.getsignal(number)
    if not callable(before):
        return

    def handle(number: int, frame: FrameType | None) -> None:
        _services.stop()
        before(number, frame)

    signal.signal(number, handle)


if threading.current_thread() is threading.main_thread():  # only there a handler can be set
    for _how in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT"):  # SIGABRT: to a worker that hangs
        if hasattr(signal, _how):
            _stop_first(getattr(signal, _how))
limit_stop()
atexit.register(_services.close)

"""What each process of gunicorn does: it looks after pulls, ends its answers at a stop, has one root path."""

from __future__ import annotations

import atexit
import io
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterable
from types import FrameType
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from app.container import Services
from app.stopping import limit_stop

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_MOMENT = 1.5  # seconds; an answer learns of a stop after half a second
_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT")  # SIGABRT: to a worker that hangs


def without_oddities(wsgi_app: WSGIApplication) -> WSGIApplication:
    """Return *wsgi_app* without what gunicorn adds to it.

    gunicorn takes a prefix of the path from a header SCRIPT_NAME, which any client can send: here, only a
    prefix from the environment variable counts. It also raises exceptions of its own for faults in a body.
    """
    own = os.environ.get("SCRIPT_NAME", "")

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ = {**environ, "wsgi.input": _Input(environ["wsgi.input"])}
        named = environ.get("SCRIPT_NAME", "")
        if named != own:
            path = unquote_to_bytes(named.encode("latin-1")).decode("latin-1") + environ["PATH_INFO"]
            environ = {**environ, "SCRIPT_NAME": own, "PATH_INFO": path.removeprefix(own)}
        return wsgi_app(environ, start_response)

    return serve


class _Input(io.RawIOBase):
    """A request's body; each exception while it is read is an OSError, as for a lost connection."""

    def __init__(self, body: IO[bytes]) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._body.read(len(buffer))
        except Exception as exc:  # its classes are not the same in all versions
            raise OSError("the body cannot be read") from exc
        buffer[: len(data)] = data
        return len(data)


def look_after_pulls(services: Services) -> None:
    """Run pulls in this process; in gunicorn's master, run them in each process that it forks."""
    if not _is_in_master():
        services.jobs.start()
        return
    master = os.getpid()

    def start() -> None:
        if os.getppid() == master:  # and not in a process that a worker forks
            services.jobs.start()

    # Two processes must not use one connection: the master keeps none when it forks.
    os.register_at_fork(before=services.database.close, after_in_child=start)


def stop_at_signals(services: Services) -> None:
    """Let a signal that ends the process first stop *services*, and then do what it does now.

    Does nothing in gunicorn's master, whose workers set their own handlers after the fork.
    """
    if _is_in_master() or threading.current_thread() is not threading.main_thread():
        return
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None:
            _stop_first(services, number)
    limit_stop()
    atexit.register(services.close)


def _stop_first(services: Services, number: int) -> None:
    before = signal.getsignal(number)
    if not callable(before):
        return

    def handle(number: int, frame: FrameType | None) -> None:
        services.stop()
        if number != signal.SIGTERM:  # gunicorn now ends the process: the answers get a moment to end before
            time.sleep(_MOMENT)
        before(number, frame)

    signal.signal(number, handle)


def _is_in_master() -> bool:
    """Tell whether gunicorn's master imports the app, and not one of its workers."""
    callers = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(None)}
    return "gunicorn.arbiter" in callers and "gunicorn.workers.base" not in callers

"""Running answers, and stopping them: in this process, or in another one on the same database."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.errors import ChatNotRunning
from app.storage.database import ChatStop, Database, utc_now
from app.threads import Recurring

log = logging.getLogger(__name__)

_INTERVAL = 0.25  # seconds between two looks at what other processes want
_KEPT_FOR = timedelta(minutes=1)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATIENCE = 1.0  # seconds that another process has to say that the answer is its own


class Stops:
    """The answers that are being made, by their request ids."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._is_away = False  # the database, at the last look
        self._looks = Recurring("chat stops", _INTERVAL, self._look)

    @contextmanager
    def running(self, request_id: str) -> Iterator[threading.Event]:
        """Yield an event that is set when the answer *request_id*, made in here, is to stop."""
        stop = threading.Event()
        with self._lock:
            self._running.setdefault(request_id, []).append(stop)
        try:
            with self._looks.busy():
                yield stop
        finally:
            with self._lock:
                self._running[request_id].remove(stop)
                if not self._running[request_id]:
                    del self._running[request_id]

    def stop(self, request_id: str) -> None:
        """Stop the answer *request_id*, whichever process makes it.

        :raises ChatNotRunning: when none does
        """
        may_be_one = _ID.fullmatch(request_id)
        if may_be_one and (self._stop_here(request_id) or self._stop_elsewhere(request_id)):
            return
        raise ChatNotRunning(
            f"No answer with the request id '{request_id[:64]}' is being made.",
            hint="It may be over. The id is in a stream's `start` and in the X-Request-ID header.",
            details={"request_id": request_id[:64]},
        )

    def close(self) -> None:
        """End the watch."""
        self._closed.set()
        self._looks.close()

    def _stop_here(self, request_id: str) -> bool:
        with self._lock:
            stops = list(self._running.get(request_id, ()))
        for stop in stops:
            stop.set()
        return bool(stops)

    def _stop_elsewhere(self, request_id: str) -> bool:
        """Leave the wish in the database, and wait until the process that it concerns has seen it."""
        self._wish(request_id)
        deadline = time.monotonic() + _PATIENCE
        while True:
            with self._database.session() as session:
                found = session.get(ChatStop, request_id)
                if found is not None and found.is_done:
                    return True
            if time.monotonic() >= deadline or self._closed.wait(0.1):
                return False

    def _wish(self, request_id: str) -> None:
        """Leave the wish; one that was fulfilled a moment ago holds for whoever asks for the same."""
        now = utc_now()
        with self._database.session() as session:
            session.execute(delete(ChatStop).where(ChatStop.created_at < now - _KEPT_FOR))
            found = session.get(ChatStop, request_id)
            if found is None or found.created_at < now - timedelta(seconds=_PATIENCE):
                session.merge(ChatStop(request_id=request_id, is_done=False, created_at=now))

    def _look(self) -> None:
        """Look for wishes of other processes."""
        with self._lock:
            running = list(self._running)
        try:
            self._fulfil(running)
            self._is_away = False
        except SQLAlchemyError as exc:  # the next look may tell
            if not self._is_away:
                log.warning("wishes to stop answers cannot be read: %s", type(exc).__name__)
            self._is_away = True

    def _fulfil(self, running: list[str]) -> None:
        waiting = select(ChatStop.request_id).where(ChatStop.is_done.is_(False))
        with self._database.session() as session:
            wanted = [request_id for request_id in session.scalars(waiting) if request_id in running]
        for request_id in wanted:
            if self._stop_here(request_id):
                with self._database.session() as session:
                    done = update(ChatStop).where(ChatStop.request_id == request_id).values(is_done=True)
                    session.execute(done)

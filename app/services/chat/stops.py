"""Stop running answers, in this process or in another one that uses the same database."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import delete, select, update

from app.errors import ChatNotRunning
from app.storage.database import ChatStop, Database, is_fresh, utc_now
from app.threads import Recurring

_INTERVAL = 0.25  # seconds between two looks for the wishes of other processes
_KEPT_FOR = timedelta(minutes=1)  # the age at which a wish is deleted
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATIENCE = 1.0  # seconds that another process has to fulfil a wish


class Stops:
    """The running answers of this process, by their request ids.

    A wish to stop an answer of another process is a row in the database, which that process looks for.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._looks = Recurring("stops of answers by other processes", _INTERVAL, self._look)

    @property
    def failure(self) -> str:
        """A sentence that says why other processes cannot stop answers of this one; empty if they can."""
        return self._looks.failure

    @contextmanager
    def running(self, request_id: str) -> Iterator[threading.Event]:
        """Yield an event that is set to stop the answer *request_id*, which runs in this block."""
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
        """Stop the answer *request_id*, in whichever process it runs.

        :raises ChatNotRunning: when it runs in none
        """
        may_be_one = _ID.fullmatch(request_id)
        if may_be_one and (self._stop_here(request_id) or self._stop_elsewhere(request_id)):
            return
        raise ChatNotRunning(
            f"There is no running answer with the request id '{request_id[:64]}'.",
            hint="The answer may be over. The id is in the stream's `start` and in the X-Request-ID header.",
            details={"request_id": request_id[:64]},
        )

    def close(self) -> None:
        """Stop looking for wishes."""
        self._closed.set()
        self._looks.close()

    def _stop_here(self, request_id: str) -> bool:
        with self._lock:
            stops = list(self._running.get(request_id, ()))
        for stop in stops:
            stop.set()
        return bool(stops)

    def _stop_elsewhere(self, request_id: str) -> bool:
        """Put the wish into the database, and wait until a process has fulfilled it."""
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
        """Put the wish into the database; one of the last second stays, also when it is fulfilled already.

        So two clients that stop the same answer at the same time both succeed.
        """
        with self._database.session() as session:
            session.execute(delete(ChatStop).where(~is_fresh(ChatStop.created_at, _KEPT_FOR)))
            found = session.get(ChatStop, request_id)
            if found is None or not is_fresh(found.created_at, timedelta(seconds=_PATIENCE)):
                session.merge(ChatStop(request_id=request_id, is_done=False, created_at=utc_now()))

    def _look(self) -> None:
        """Look for the wishes of other processes, and fulfil them."""
        with self._lock:
            running = list(self._running)
        waiting = select(ChatStop.request_id).where(ChatStop.is_done.is_(False))
        with self._database.session() as session:
            wanted = [request_id for request_id in session.scalars(waiting) if request_id in running]
        for request_id in wanted:
            if self._stop_here(request_id):
                with self._database.session() as session:
                    done = update(ChatStop).where(ChatStop.request_id == request_id).values(is_done=True)
                    session.execute(done)

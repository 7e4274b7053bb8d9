"""Times of the day: when daily work is due, and when pulls may run."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from app.schemas.settings import Window
from app.storage.database import Database
from app.storage.tables import CLOCK_TOLERANCE, Occasion, utc_now

_DAY = timedelta(days=1)


def occasion(time: str, window: Window | None, now: datetime) -> datetime | None:
    """Return the last moment when daily work at *time* was due; None if *now* is outside its *window*.

    A *time* outside the window counts as the beginning of the window.
    """
    if window is None:
        return _latest(time, now)
    beginning = _latest(window["from"], now)
    end = _next(window["to"], beginning)
    due = _next(time, beginning - timedelta(seconds=1))  # one second before: *time* may equal the beginning
    due = due if due < end else beginning
    return due if due <= now < end else None


def is_open(window: Window | None, now: datetime) -> bool:
    """Tell whether *now* is in the *window*; without a window, it always is."""
    return window is None or now < _next(window["to"], _latest(window["from"], now))


class Occasions:
    """The times of recurring work, in the database: the first process that claims a time does the work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, name: str, at: datetime) -> bool:
        """Claim the time *at* for this process; return False if another process has claimed it.

        A claim of a time in the future is not believed: the clock was set back since.
        """
        is_free = (Occasion.at < at) | (Occasion.at > utc_now() + CLOCK_TOLERANCE)
        earlier = update(Occasion).where(Occasion.name == name, is_free).values(at=at)
        with self._database.session() as session:
            if session.execute(earlier).rowcount:  # type: ignore[attr-defined]
                return True
            if session.get(Occasion, name) is not None:
                return False
        try:
            with self._database.session() as session:
                session.add(Occasion(name=name, at=at))
        except IntegrityError:  # another process has just claimed it
            return False
        return True

    def release(self, name: str, at: datetime) -> None:
        """Give up the claim of the time *at*, because the work could not begin."""
        again = update(Occasion).where(Occasion.name == name, Occasion.at == at)
        with self._database.session() as session:
            session.execute(again.values(at=at - _DAY))


def _latest(clock: str, now: datetime) -> datetime:
    """Return the last moment at or before *now* when the clock showed *clock* (``HH:MM``)."""
    moment = _at(clock, now)
    return moment if moment <= now else moment - _DAY


def _next(clock: str, moment: datetime) -> datetime:
    """Return the first moment after *moment* when the clock shows *clock*."""
    found = _at(clock, moment)
    return found if found > moment else found + _DAY


def _at(clock: str, day: datetime) -> datetime:
    hour, minute = clock.split(":")
    return day.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)

"""The times of the day: when daily work is due, and when pulls may run."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from app.schemas.settings import Window
from app.storage.database import Database
from app.storage.tables import Occasion

_DAY = timedelta(days=1)


def occasion(time: str, window: Window | None, now: datetime) -> datetime | None:
    """Return when what is due daily at *time* was due last; None when its *window* is over by *now*.

    A *time* outside the window counts as the window's beginning.
    """
    if window is None:
        return _latest(time, now)
    beginning = _latest(window["from"], now)
    end = _next(window["to"], beginning)
    due = _next(time, beginning - timedelta(seconds=1))
    due = due if due < end else beginning
    return due if due <= now < end else None


def is_open(window: Window | None, now: datetime) -> bool:
    """Tell whether *now* is in the *window*; without one, it always is."""
    return window is None or now < _next(window["to"], _latest(window["from"], now))


class Occasions:
    """The times of recurring work: of all processes, the first one that claims a time does the work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, name: str, at: datetime) -> bool:
        """Claim the time *at* for this process; False when a process has claimed it already."""
        earlier = update(Occasion).where(Occasion.name == name, Occasion.at < at).values(at=at)
        with self._database.session() as session:
            if session.execute(earlier).rowcount:  # type: ignore[attr-defined]
                return True
            if session.get(Occasion, name) is not None:
                return False
        try:
            with self._database.session() as session:
                session.add(Occasion(name=name, at=at))
        except IntegrityError:  # another process was quicker
            return False
        return True

    def release(self, name: str, at: datetime) -> None:
        """Give the time *at* back, as the work could not begin."""
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

"""When daily work is due, and who does it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Timeouts
from app.errors import PullNotFound, UpstreamUnavailable
from app.services.models.versions import VersionStore
from app.services.pulls.feed import PullFeeds
from app.services.pulls.schedule import Occasions, is_open, occasion
from app.services.pulls.service import PullService
from app.services.pulls.store import PullStore
from app.services.settings import SettingsStore
from app.services.updates.daily import DailyUpdate
from app.storage.database import Database, KeptVersion

ZONE = timezone(timedelta(hours=2))
NIGHT = {"from": "01:00", "to": "06:00"}
OVER_MIDNIGHT = {"from": "22:00", "to": "05:00"}
ON = {"enabled": True, "time": "03:00", "window": NIGHT, "skip_loaded": True}

clocks = st.times().map(lambda time: time.strftime("%H:%M"))
windows = st.one_of(st.none(), st.builds(lambda start, end: {"from": start, "to": end}, clocks, clocks))
YEAR = datetime(2026, 1, 2, tzinfo=ZONE)
moments = st.timedeltas(timedelta(0), timedelta(days=363)).map(lambda passed: YEAR + passed)


def at(clock: str, day: int = 22) -> datetime:
    hour, minute = clock.split(":")
    return datetime(2026, 11, day, int(hour), int(minute), tzinfo=ZONE)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database("", tmp_path)
    database.migrate()
    yield database
    database.close()


@pytest.mark.parametrize(
    ("time", "window", "now", "due"),
    [
        ("03:00", NIGHT, at("02:59"), None),
        ("03:00", NIGHT, at("03:00"), at("03:00")),
        ("03:00", NIGHT, at("05:59"), at("03:00")),
        ("03:00", NIGHT, at("06:00"), None),
        ("03:00", NIGHT, at("23:00"), None),
        ("12:00", NIGHT, at("01:30"), at("01:00")),  # a time outside of the window: its beginning
        ("23:00", OVER_MIDNIGHT, at("22:30"), None),
        ("23:00", OVER_MIDNIGHT, at("00:30"), at("23:00", 21)),
        ("03:00", OVER_MIDNIGHT, at("02:59"), None),
        ("03:00", OVER_MIDNIGHT, at("04:00"), at("03:00")),
        ("03:00", OVER_MIDNIGHT, at("12:00"), None),
        ("03:00", None, at("02:00"), at("03:00", 21)),
        ("03:00", None, at("09:00"), at("03:00")),
    ],
)
def test_occasion_is_the_time_of_the_window_that_now_is_in(
    time: str, window: dict[str, str] | None, now: datetime, due: datetime | None
) -> None:
    assert occasion(time, window, now) == due


@given(time=clocks, window=windows, now=moments)
def test_occasion_is_never_in_the_future_nor_outside_of_the_window(
    time: str, window: dict[str, str] | None, now: datetime
) -> None:
    due = occasion(time, window, now)

    if due is not None:
        assert now - timedelta(days=1) <= due <= now
        assert is_open(window, now)
        assert is_open(window, due)


@given(time=clocks, window=windows, start=moments)
def test_occasions_are_a_day_apart(time: str, window: dict[str, str] | None, start: datetime) -> None:
    minutes = [start.replace(second=0, microsecond=0) + timedelta(minutes=5 * i) for i in range(288)]

    found = sorted({due for now in minutes if (due := occasion(time, window, now))})

    assert all(later - sooner == timedelta(days=1) for sooner, later in pairwise(found))


def test_occasion_is_claimed_once_by_whoever_comes_first(database: Database, tmp_path: Path) -> None:
    other = Database("", tmp_path)

    claims = [Occasions(each).claim("updates", at("03:00")) for each in (database, other, database)]
    next_day = Occasions(other).claim("updates", at("03:00", 23))
    other.close()

    assert claims == [True, False, False]
    assert next_day is True


def test_released_occasion_can_be_claimed_again(database: Database) -> None:
    occasions = Occasions(database)
    occasions.claim("updates", at("03:00"))

    occasions.release("updates", at("03:00"))

    assert occasions.claim("updates", at("03:00")) is True
    assert occasions.claim("updates", at("03:00")) is False


class Updates:
    """Notes what it is asked for; fails while it is to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failing = False

    def start(self, models: None, **values: Any) -> dict[str, Any]:
        self.asked.append(values)
        if self.failing:
            raise UpstreamUnavailable("Ollama is not running.")
        return {"started": [], "skipped": []}


def daily_update(database: Database, updates: Updates, now: datetime, **values: Any) -> DailyUpdate:
    store = PullStore(database)
    settings = SettingsStore(Path(tempfile.mkdtemp()) / "settings.json", Timeouts())
    pulls = PullService(store, None, None, settings, PullFeeds(store), lambda _: None, threading.Event())
    settings.update(updates={**ON, **values})
    versions = VersionStore(database)
    return DailyUpdate(settings, Occasions(database), versions, pulls, updates, clock=lambda: now)


def test_automatic_updates_run_once_a_day(database: Database) -> None:
    updates = Updates()

    for now in (at("02:00"), at("03:00"), at("03:01"), at("12:00"), at("04:00", 23)):
        daily_update(database, updates, now).tick()

    assert updates.asked == [{"include_loaded": False, "automatic": True}] * 2


def test_automatic_updates_are_off_unless_they_are_enabled(database: Database) -> None:
    updates = Updates()

    daily_update(database, updates, at("03:00"), enabled=False).tick()

    assert updates.asked == []


def test_automatic_updates_that_could_not_begin_are_tried_again(database: Database) -> None:
    updates = Updates()
    updates.failing = True
    daily_update(database, updates, at("03:00"), skip_loaded=False).tick()
    updates.failing = False

    daily_update(database, updates, at("03:10"), skip_loaded=False).tick()
    daily_update(database, updates, at("03:20"), skip_loaded=False).tick()

    assert updates.asked == [{"include_loaded": True, "automatic": True}] * 2


def test_automatic_pull_is_paused_once_when_the_window_is_over(database: Database) -> None:
    store, versions = PullStore(database), VersionStore(database)
    pull = store.join("a:1", "registry.ollama.ai/library/a:1", insecure=False)
    key = "registry.ollama.ai/library/a:1"
    row = KeptVersion(name="a:1-prev-0", model="a:1", key=key, digest="0", pull_id=pull.id, automatic=True)
    versions.save(row)

    daily_update(database, Updates(), at("06:01")).tick()
    paused = store.get(pull.id).status
    store.want(pull.id, "running")
    daily_update(database, Updates(), at("06:02")).tick()

    assert paused == "paused"
    assert store.get(pull.id).status == "queued"


def test_automatic_pull_that_is_gone_is_no_fault(database: Database) -> None:
    versions = VersionStore(database)
    versions.save(
        KeptVersion(name="a:1-prev-0", model="a:1", key="a", digest="0", pull_id="x", automatic=True)
    )

    daily_update(database, Updates(), at("06:01")).tick()

    with pytest.raises(PullNotFound):
        PullStore(database).get("x")
    assert versions.all()[0].automatic is False

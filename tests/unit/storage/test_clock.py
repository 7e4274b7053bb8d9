"""Times that lie in the future, because the clock was set back: none of them is believed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from app.errors import ChatNotRunning, ConversationBusy
from app.services.chat.stops import Stops
from app.services.conversations.store import ConversationStore
from app.services.models.uses import ModelUses
from app.services.models.versions import VersionStore
from app.services.pulls.idempotency import IdempotencyService
from app.services.pulls.progress import Progress
from app.services.pulls.schedule import Occasions
from app.services.pulls.store import PullStore
from app.storage.database import (
    Base,
    ChatStop,
    Database,
    IdempotencyKey,
    KeptVersion,
    Occasion,
    Pull,
    is_fresh,
    utc_now,
)
from app.storage.tables import CLOCK_TOLERANCE, ConversationMessage

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def _set_back(database: Database, table: type[Base], **columns: timedelta) -> None:
    """Let the rows lie in the future, as they do after the clock was set back."""
    with database.session() as session:
        session.execute(update(table).values({name: utc_now() + by for name, by in columns.items()}))


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (timedelta(), True),
        (-MINUTE / 2, True),
        (CLOCK_TOLERANCE / 2, True),
        (-2 * MINUTE, False),
        (2 * CLOCK_TOLERANCE, False),
        (timedelta(days=400), False),
    ],
)
def test_only_a_recent_time_is_fresh_in_python_and_in_sql(
    database: Database, shift: timedelta, expected: bool
) -> None:
    at = utc_now() + shift
    with database.session() as session:
        session.add(Occasion(name="a", at=at))
        session.flush()
        found = session.scalars(select(Occasion.name).where(is_fresh(Occasion.at, MINUTE))).all()

    assert is_fresh(at, MINUTE) is expected
    assert bool(found) is expected


def test_running_pull_of_a_dead_worker_is_taken_up(database: Database) -> None:
    store = PullStore(database)
    pull = store.join("a", "a:latest", insecure=False)
    assert store.claim(pull.id, "dead", 1)
    _set_back(database, Pull, heartbeat_at=HOUR)

    assert store.waiting() == [pull.id]
    assert store.running() == 0
    assert store.claim(pull.id, "alive", 1)
    assert store.report(pull.id, "dead", Progress({}, None, None, []), 0.0, 1) == "lost"
    assert store.waiting() == []


def test_running_pull_of_a_dead_worker_is_cancelled_at_once(database: Database) -> None:
    store = PullStore(database)
    pull = store.join("a", "a:latest", insecure=False)
    store.claim(pull.id, "dead", 1)
    _set_back(database, Pull, heartbeat_at=HOUR)

    assert store.want(pull.id, "cancelled").status == "cancelled"


def test_live_worker_keeps_its_pull_when_the_clock_is_set_back(database: Database) -> None:
    store = PullStore(database)
    pull = store.join("a", "a:latest", insecure=False)
    store.claim(pull.id, "alive", 1)
    _set_back(database, Pull, heartbeat_at=HOUR)

    assert store.report(pull.id, "alive", Progress({}, None, None, []), 0.0, 1) == "running"
    assert store.claim(pull.id, "other", 1) is None


def test_conversation_of_a_dead_process_is_not_busy(database: Database) -> None:
    store = ConversationStore(database)
    id = store.create()["id"]
    store.begin(id, [{"role": "user", "content": "One"}], "ollama", "a:1")
    with pytest.raises(ConversationBusy):
        store.begin(id, [{"role": "user", "content": "Two"}], "ollama", "a:1")
    _set_back(database, ConversationMessage, heartbeat_at=HOUR)

    assert store.get(id, limit=9)["messages"][-1]["status"] == "cut"
    assert store.begin(id, [{"role": "user", "content": "Two"}], "ollama", "a:1")


def test_key_of_a_dead_request_does_not_keep_the_next_one_waiting(database: Database) -> None:
    keys = IdempotencyService(database)
    with database.session() as session:
        keys_of_the_dead = IdempotencyKey(key="pull:k", fingerprint="x", created_at=utc_now() + HOUR)
        session.add(keys_of_the_dead)

    assert keys.once("pull", "k", {}, lambda: {"id": "1"}) == {"id": "1"}


def test_answered_key_still_protects_its_request(database: Database) -> None:
    keys = IdempotencyService(database)
    keys.once("pull", "k", {}, lambda: {"id": "1"})
    _set_back(database, IdempotencyKey, created_at=HOUR)
    keys.prune()

    assert keys.once("pull", "k", {}, lambda: {"id": "2"}) == {"id": "1"}


def test_answered_key_of_another_year_is_forgotten(database: Database) -> None:
    keys = IdempotencyService(database)
    keys.once("pull", "k", {}, lambda: {"id": "1"})
    _set_back(database, IdempotencyKey, created_at=timedelta(days=400))
    keys.prune()

    assert keys.once("pull", "k", {}, lambda: {"id": "2"}) == {"id": "2"}


def test_wish_to_stop_that_was_fulfilled_in_the_future_stops_nothing(database: Database) -> None:
    with database.session() as session:
        session.add(ChatStop(request_id="r", is_done=True, created_at=utc_now() + HOUR))

    with pytest.raises(ChatNotRunning):
        Stops(database).stop("r")


def test_daily_work_goes_on_after_a_claim_in_the_future(database: Database) -> None:
    occasions = Occasions(database)
    due = utc_now() - MINUTE
    assert occasions.claim("updates", due + timedelta(days=400))

    assert occasions.claim("updates", due) is True
    assert occasions.claim("updates", due) is False


def test_kept_version_of_no_pull_is_settled(database: Database) -> None:
    versions = VersionStore(database)
    versions.save(
        KeptVersion(
            name="a:1-prev",
            model="a:1",
            key="a:1",
            digest="sha256:0",
            status="pending",
            pull_id="",
            automatic=False,
            created_at=utc_now() + HOUR,
        )
    )

    assert [row.name for row in versions.over()] == ["a:1-prev"]


def test_uses_are_not_recorded_from_a_time_in_the_future_on(database: Database) -> None:
    uses = ModelUses(database)
    uses.since()
    _set_back(database, Occasion, at=timedelta(days=400))

    assert uses.since() <= utc_now()
    with database.session() as session:
        assert session.scalar(text("select count(*) from occasions")) == 1

"""Idempotency keys: run a request that a client sends twice only once."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, null, update
from sqlalchemy.exc import IntegrityError

from app.errors import IdempotencyKeyReused, StorageFailed
from app.storage.database import Database
from app.storage.tables import IdempotencyKey, is_fresh, utc_now

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(hours=24)
LEASE = timedelta(seconds=60)
"""The longest time of a request; after that its process counts as dead, and the next request is run."""

_POLL = 0.05  # seconds between two looks for the answer of another request


class IdempotencyService:
    """The keys that clients sent, with their answers, in the database: all processes share them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def once(
        self, scope: str, key: str | None, request: Mapping[str, object], do: Callable[[], dict[str, str]]
    ) -> dict[str, str]:
        """Call *do* for the first request with this *key*; return its answer to the later ones, too.

        A request that comes while *do* runs waits for the answer. When *do* raises, nothing is stored, and
        the next request calls it again.

        :param scope: the operation; the same key of two operations counts as two keys
        :param key: the client's key; None to call *do* in any case
        :param request: the body, as JSON values
        :param do: must take less time than :data:`LEASE`
        :raises IdempotencyKeyReused: when the first request with this key had another body
        """
        if key is None:
            return do()
        name, fingerprint = f"{scope}:{key}", _fingerprint(request)
        while (claimed := self._claim(name, fingerprint)) is None:
            row = self._find(name)
            if row is not None and row.fingerprint != fingerprint:
                raise IdempotencyKeyReused(
                    "This Idempotency-Key was sent before, with another body.",
                    hint="Send a new key with each new request; send the same key only with the same body.",
                )
            if row is not None and row.answer is not None:
                return row.answer
            time.sleep(_POLL)
        try:
            answer = do()
        except BaseException:
            self._try(self._release, name, claimed)
            raise
        self._try(self._keep, name, claimed, answer)
        return answer

    def _try(self, change: Callable[..., None], name: str, *values: object) -> None:
        """Change the claim of a key, if the database lets us: the request itself is decided already."""
        try:
            change(name, *values)
        except StorageFailed as exc:
            log.warning("a repeated request with this key will wait for a minute: %s", exc.message)

    def prune(self) -> None:
        """Delete the keys that are older than :data:`KEPT_FOR`."""
        with self._database.session() as session:
            session.execute(delete(IdempotencyKey).where(_is_old()))

    def _claim(self, name: str, fingerprint: str) -> datetime | None:
        """Take the key for this request; return the time of that, or None if another request has the key.

        The time identifies the claim: after :data:`LEASE`, another request may take the key over.
        """
        now = utc_now()
        is_dead = IdempotencyKey.answer.is_(null()) & ~is_fresh(IdempotencyKey.created_at, LEASE)
        is_over = is_dead | _is_old()
        try:
            with self._database.session() as session:
                session.execute(delete(IdempotencyKey).where(IdempotencyKey.key == name, is_over))
                session.add(IdempotencyKey(key=name, fingerprint=fingerprint, created_at=now))
        except IntegrityError:
            return None
        return now

    def _find(self, name: str) -> IdempotencyKey | None:
        with self._database.session() as session:
            return session.get(IdempotencyKey, name)

    def _keep(self, name: str, claimed: datetime, answer: dict[str, str]) -> None:
        with self._database.session() as session:
            mine = update(IdempotencyKey).where(
                IdempotencyKey.key == name, IdempotencyKey.created_at == claimed
            )
            session.execute(mine.values(answer=answer))

    def _release(self, name: str, claimed: datetime) -> None:
        with self._database.session() as session:
            session.execute(
                delete(IdempotencyKey).where(IdempotencyKey.key == name, IdempotencyKey.created_at == claimed)
            )


def _is_old() -> ColumnElement[bool]:
    """Return the SQL condition that a key has been kept long enough.

    A time in the near future is no reason: after the clock was set back, the key must go on to protect.
    """
    now = utc_now()
    return (IdempotencyKey.created_at < now - KEPT_FOR) | (IdempotencyKey.created_at > now + KEPT_FOR)


def _fingerprint(request: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

"""Idempotency keys: a request that a client sends again is not done again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import delete, null, update
from sqlalchemy.exc import IntegrityError

from app.errors import IdempotencyKeyReused
from app.storage.database import Database
from app.storage.tables import IdempotencyKey, utc_now

KEPT_FOR = timedelta(hours=24)
LEASE = timedelta(seconds=60)
"""How long a request may take; then its process is taken for dead, and the next request is done instead."""

_POLL = 0.05  # seconds between two looks for the answer of another request


class IdempotencyService:
    """The keys that clients sent, and the answers; all processes share them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def once(
        self, scope: str, key: str | None, request: Mapping[str, object], do: Callable[[], dict[str, str]]
    ) -> dict[str, str]:
        """Call *do* for the first request with this *key*; return the first request's answer for all others.

        An equal request that comes meanwhile waits for that answer. When *do* raises, nothing is kept: the
        next request calls it again.

        :param scope: the operation: keys of different operations are different keys
        :param key: None to call *do* in any case
        :param request: the body, which can be written as JSON
        :param do: takes less than :data:`LEASE`
        :raises IdempotencyKeyReused: when the first request with this key had another body
        """
        if key is None:
            return do()
        name, fingerprint = f"{scope}:{key}", _fingerprint(request)
        while (claimed := self._claim(name, fingerprint)) is None:
            row = self._find(name)
            if row is not None and row.fingerprint != fingerprint:
                raise IdempotencyKeyReused(
                    "This Idempotency-Key was sent before, with another request.",
                    hint="Send a new key with each new request, and the same one only with the same body.",
                )
            if row is not None and row.answer is not None:
                return row.answer
            time.sleep(_POLL)
        try:
            answer = do()
        except BaseException:
            self._release(name, claimed)
            raise
        self._keep(name, claimed, answer)
        return answer

    def prune(self) -> None:
        """Delete the keys that are too old."""
        with self._database.session() as session:
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < utc_now() - KEPT_FOR))

    def _claim(self, name: str, fingerprint: str) -> datetime | None:
        """Take the key for this request, and return the time; None when another request has it."""
        now = utc_now()
        is_dead = IdempotencyKey.answer.is_(null()) & (IdempotencyKey.created_at < now - LEASE)
        is_over = is_dead | (IdempotencyKey.created_at < now - KEPT_FOR)
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


def _fingerprint(request: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

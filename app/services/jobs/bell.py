"""Tell other processes over Redis that a pull waits for a worker."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from app.storage.failures import storage_error

log = logging.getLogger(__name__)

_KEY = "ollama-backend:pulls"
_KEPT = 1000  # messages; the database knows the pulls of older ones
_SILENCE = 1  # seconds that wait() waits for a message
_PATIENCE = 3.0  # seconds that Redis may take to answer
_ID = re.compile("[0-9a-f]{32}")
_LONGEST = 100  # bytes of a message


class Bell:
    """A list in Redis with the ids of pulls that wait; the process that takes an id runs the pull.

    A message is JSON, ``{"pull": "<id>"}``, and anything else is dropped: who can write into Redis can wake
    workers, and nothing more.

    :raises StorageFailed: when the package `redis` is not installed, or *url* is no address of a Redis
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise storage_error("redis_driver") from None
        retry = Retry(NoBackoff(), 1)  # a kept connection may be dead
        try:
            self._redis = redis.Redis.from_url(
                url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=retry
            )
        except ValueError:
            raise storage_error("redis_address") from None
        self._failures = (redis.RedisError, OSError)

    def ring(self, id: str) -> None:
        """Tell the processes that the pull *id* waits.

        :raises StorageFailed: when Redis does not answer, or refuses the message
        """
        with self._translated():
            self._redis.lpush(_KEY, json.dumps({"pull": id}))
            self._redis.ltrim(_KEY, 0, _KEPT - 1)

    def wait(self) -> str | None:
        """Wait for a message; return its pull's id, empty if it is not from this program, None if none came.

        :raises StorageFailed: when Redis does not answer
        """
        with self._translated():
            found = self._redis.brpop([_KEY], timeout=_SILENCE)
        return _id_of(found[1]) if found else None

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._failures as exc:
            raise storage_error("redis") from exc


def _id_of(message: bytes | str) -> str:
    try:
        found = json.loads(message) if len(message) <= _LONGEST else None
    except ValueError:
        found = None
    id = found.get("pull") if isinstance(found, dict) else None
    if isinstance(id, str) and _ID.fullmatch(id):
        return id
    log.warning("a message in Redis is not from this program, and is dropped")
    return ""

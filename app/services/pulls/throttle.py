"""A limit of bytes per second for a pull.

Ollama downloads as fast as it can, and has no such limit. So a pull that is too far ahead of its limit closes
the connection, which stops Ollama, waits until the average is right again, and asks Ollama to go on.
"""

from __future__ import annotations

LEAD = 10.0
"""Seconds that a pull may be ahead before it waits; it then waits as long, so Ollama is seldom asked."""


class Throttle:
    """How far a pull is ahead of its limit: a leaky bucket.

    Downloaded bytes are added, and the limit takes bytes away with time, down to none: a pull does not catch
    up on slow times.

    :param now: seconds of a monotonic clock, here and below
    """

    def __init__(self, now: float) -> None:
        self._bytes = 0.0
        self._at = now
        self._here: dict[str, int] = {}

    def take(self, digest: str, here: int) -> None:
        """Note that *here* bytes of a layer are downloaded; the first note of a layer adds nothing."""
        known = self._here.get(digest, here)
        self._bytes += max(0, here - known)
        self._here[digest] = max(here, known)

    def lead(self, limit: float | None, now: float) -> float:
        """Return how many seconds the pull is ahead of *limit* bytes per second; 0 without a limit."""
        passed, self._at = now - self._at, now
        if not limit:
            self._bytes = 0.0
            return 0.0
        self._bytes = max(0.0, self._bytes - limit * passed)
        return self._bytes / limit

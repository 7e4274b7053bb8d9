"""How far a pull is ahead of the bytes per second that it may fetch.

Ollama fetches as fast as it can. So a pull that is too far ahead hangs up on it, waits until the average is
right again, and goes on from what is here: like an engine that is run for a while and rests for a while.
"""

from __future__ import annotations

LEAD = 10.0
"""Seconds that a pull may be ahead before it rests: so it rests for as long, and asks no more often."""


class Throttle:
    """A bucket that what is fetched runs into, and that leaks at the speed of the limit.

    It does not fill up with what was not fetched in slow times: a pull never makes up for them.

    :param now: seconds of a monotonic clock, here and below
    """

    def __init__(self, now: float) -> None:
        self._bytes = 0.0
        self._at = now
        self._here: dict[str, int] = {}

    def take(self, digest: str, here: int) -> None:
        """Note that *here* bytes of a layer are there; those that were at the first sight cost nothing."""
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

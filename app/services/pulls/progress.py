"""The progress of a pull over all its layers, and the limit of its speed.

Ollama downloads as fast as it can, and has no such limit. So a pull that is too far ahead of its limit closes
the connection, which stops Ollama, waits until the average is right again, and asks Ollama to go on.
"""

from __future__ import annotations

from collections import deque

from app.manifest import MAX_SIZE
from app.schemas.pulls import PullPart

WINDOW = 10.0  # seconds over which the speed is measured
LIMITED_WINDOW = 60.0  # the same for a pull that pauses now and then to keep a limit
LEAD = 10.0
"""Seconds that a pull may be ahead before it waits; it then waits as long, so Ollama is seldom asked."""

_LOG_LIMIT = 200


class Progress:
    """The progress of a pull; ``completed`` never falls, whatever Ollama sends.

    :param layers: bytes that were downloaded, by digest
    :param total: bytes of all layers, where they are known from the registry's manifest
    :param percent: the last reported one
    :param log: the compacted log so far
    """

    def __init__(
        self, layers: dict[str, int], total: int | None, percent: float | None, log: list[PullPart]
    ) -> None:
        self.layers = dict(layers)
        self.total = total
        self._percent = percent
        self.step = log[-1]["status"] if log else ""
        self._totals: dict[str, int] = {}
        self._log = {(part["status"], part["digest"]): part for part in log}
        self.window = WINDOW
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def completed(self) -> int:
        """The downloaded bytes."""
        completed = sum(self.layers.values())
        return completed if self.total is None else min(completed, self.total)

    @property
    def percent(self) -> float | None:
        """The downloaded part in percent, which never falls; None while the total is not known."""
        if self.total:
            self._percent = max(self._percent or 0.0, round(100 * self.completed / self.total, 1))
        return self._percent

    @property
    def log(self) -> list[PullPart]:
        """The lines in order; of one layer only the last line, in the place of the first."""
        return list(self._log.values())

    @property
    def is_downloading(self) -> bool:
        """Whether Ollama says that it downloads layers, and some bytes are missing."""
        is_whole = self.total is not None and self.completed >= self.total
        return self.step.startswith("pulling") and not is_whole

    def feed(self, part: PullPart, now: float) -> None:
        """Add a line of Ollama's progress, read at *now* (seconds of a monotonic clock)."""
        self.step = part["status"]
        step = (part["status"], part["digest"])
        if step in self._log or len(self._log) < _LOG_LIMIT:
            self._log[step] = part
        if part["digest"] is None or part["total"] is None:
            return
        digest = part["digest"]
        told = min(max(part["total"], 0), MAX_SIZE)
        total = self._totals[digest] = max(self._totals.get(digest, 0), told)
        here = min(max(part["completed"] or 0, 0), total)
        self.layers[digest] = max(self.layers.get(digest, 0), here)
        if self.total is None or self.total < sum(self._totals.values()):
            self.total = sum(self._totals.values())
        self._sample(now)

    def finish(self) -> None:
        """Count all layers as downloaded: Ollama sends no line of 100 %."""
        for digest, total in self._totals.items():
            self.layers[digest] = total
        if self.total is None:
            self.total = self.completed
        elif self.completed < self.total:  # Ollama sends no lines for small layers
            self.layers["rest"] = self.total - self.completed

    def bytes_per_second(self, now: float) -> float:
        """Return the speed over the last :attr:`window` seconds."""
        self._sample(now)
        (began, before), (_, after) = self._samples[0], self._samples[-1]
        return (after - before) / (now - began) if now > began else 0.0

    def _sample(self, now: float) -> None:
        self._samples.append((now, self.completed))
        while now - self._samples[0][0] > self.window:
            self._samples.popleft()


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

"""The progress of a pull over all its layers, and the limit of its speed.

Ollama cannot limit its speed. So a pull that is too far ahead of its limit closes the connection, which stops
Ollama, waits until its average speed is within the limit, and then asks Ollama to go on.
"""

from __future__ import annotations

from collections import deque

from app.manifest import MAX_SIZE
from app.schemas.pulls import PullPart

WINDOW = 10.0  # seconds over which the speed is measured
LIMITED_WINDOW = 60.0  # the same for a pull with a limit, which pauses now and then
LEAD = 10.0
"""Seconds that a pull may be ahead of its limit; then it waits as long, and so seldom asks Ollama anew."""

_LOG_LIMIT = 200  # lines
_LAYER_LIMIT = 1000


class Progress:
    """The progress of a pull; ``completed`` never falls, whatever Ollama sends.

    :param layers: the downloaded bytes of each layer, by digest
    :param total: the bytes of all layers; None if the registry's manifest is not known
    :param percent: the last reported percentage
    :param log: the log of the earlier runs of the pull
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
        """The downloaded part in percent, which never falls; None until the total is known."""
        if self.total:
            self._percent = max(self._percent or 0.0, round(100 * self.completed / self.total, 1))
        return self._percent

    @property
    def log(self) -> list[PullPart]:
        """The lines of Ollama's progress in order; for each layer, only the last line."""
        return list(self._log.values())

    @property
    def is_downloading(self) -> bool:
        """Whether Ollama downloads layers, and some bytes are still missing."""
        is_whole = self.total is not None and self.completed >= self.total
        return self.step.startswith("pulling") and not is_whole

    def feed(self, part: PullPart, now: float) -> None:
        """Add a line of Ollama's progress; *now* is in seconds of a monotonic clock."""
        self.step = part["status"]
        step = (part["status"], part["digest"])
        if step in self._log or len(self._log) < _LOG_LIMIT:
            self._log[step] = part
        if part["digest"] is None or part["total"] is None:
            return
        digest = part["digest"]
        if digest not in self._totals and len(self._totals) >= _LAYER_LIMIT:
            return
        told = min(max(part["total"], 0), MAX_SIZE)  # a false number must not break the database's column
        total = self._totals[digest] = max(self._totals.get(digest, 0), told)
        here = min(max(part["completed"] or 0, 0), total)
        self.layers[digest] = max(self.layers.get(digest, 0), here)
        if self.total is None or self.total < sum(self._totals.values()):
            self.total = sum(self._totals.values())
        self._sample(now)

    def finish(self) -> None:
        """Count all layers as downloaded: Ollama sends no line at 100 %."""
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
    """Tells how far a pull is ahead of its limit, as a leaky bucket.

    Downloaded bytes fill the bucket, and it leaks as many bytes per second as the limit allows. It cannot
    hold less than nothing: so a pull may not make up for slow times by exceeding the limit.

    :param now: seconds of a monotonic clock, here and below
    """

    def __init__(self, now: float) -> None:
        self._bytes = 0.0
        self._at = now
        self._here: dict[str, int] = {}

    def take(self, digest: str, here: int) -> None:
        """Record that *here* bytes of a layer are downloaded.

        The first call for a layer adds nothing: an earlier run may have downloaded these bytes.
        """
        known = self._here.get(digest, here)
        self._bytes += max(0, here - known)
        self._here[digest] = max(here, known)

    def lead(self, limit: float | None, now: float) -> float:
        """Return how many seconds the pull is ahead of *limit* bytes per second; 0 without a limit."""
        passed, self._at = now - self._at, now
        if not limit:  # bytes from before a limit was set do not count against it
            self._bytes = 0.0
            return 0.0
        self._bytes = max(0.0, self._bytes - limit * passed)
        return self._bytes / limit

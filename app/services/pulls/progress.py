"""The progress of a pull, over all its layers."""

from __future__ import annotations

from collections import deque

from app.schemas.pulls import PullPart
from app.schemas.registry import MAX_SIZE

WINDOW = 10.0  # seconds over which the speed is measured
LIMITED_WINDOW = 60.0  # the same for a pull that pauses now and then to keep a limit
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

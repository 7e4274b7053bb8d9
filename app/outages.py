"""Outages of background work: each is logged once, and ``/api/health`` tells it while it lasts."""

from __future__ import annotations

import logging

from app.errors import ServiceError

log = logging.getLogger(__name__)


class Outage:
    """Whether one piece of background work fails.

    :param work: names the work, such as ``recovery of pulls``
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self.reason = ""
        """A sentence for people while the work fails; else empty."""

    def begin(self, exc: Exception) -> None:
        """Record that the work failed with *exc*; only the first failure of an outage is logged."""
        if isinstance(exc, ServiceError):
            why, trace = exc.message, None
        else:
            why, trace = f"{type(exc).__name__}; the log says more.", exc
        is_first, self.reason = not self.reason, f"Background work fails ({self._work}): {why}"
        if is_first:
            log.warning("%s", self.reason, exc_info=trace)

    def end(self) -> None:
        """Record that the work succeeded."""
        if self.reason:
            log.warning("Background work goes on (%s)", self._work)
        self.reason = ""

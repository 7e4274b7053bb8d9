"""Circuits: a provider that is down is not asked again for some seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from app.errors import ServiceError
from app.services.providers.store import Provider

OPEN_FOR = 10.0
"""Seconds for which a provider that is down is not asked."""

_QUICK = 0.2


@dataclass(frozen=True)
class _Failure:
    at: float
    error: ServiceError


class Circuits:
    """The providers that could not be reached a moment ago.

    It saves waiting, so it only opens where failing took a while: a port that refuses at once costs
    nothing, and a server that was just started there is used at once.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._lock = threading.Lock()

    def check(self, provider: Provider) -> None:
        """Let a request to *provider* pass.

        :raises ServiceError: while its circuit is open, the error that opened it
        """
        now = time.monotonic()
        with self._lock:
            failure = self._failures.get(_key(provider))
            if failure is None:
                return
            ago = now - failure.at
            if ago >= OPEN_FOR:  # this one may try; the others wait for what it finds
                self._failures[_key(provider)] = _Failure(now, failure.error)
                return
        left = OPEN_FOR - ago
        raise type(failure.error)(
            f"{failure.error.message} That was {ago:.0f} s ago; it is asked again in {left:.0f} s.",
            hint=failure.error.hint,
            details={**failure.error.details, "circuit": "open"},
            retry_after=left,
        )

    def is_open(self, provider: Provider) -> bool:
        """Tell whether *provider* is not asked at the moment."""
        with self._lock:
            failure = self._failures.get(_key(provider))
        return failure is not None and time.monotonic() - failure.at < OPEN_FOR

    def failed(self, provider: Provider, error: ServiceError, seconds: float) -> None:
        """Take note of *error*, known after so many *seconds*; with a reason, there was no connection."""
        if seconds < _QUICK or "reason" not in error.details or "circuit" in error.details:
            return
        with self._lock:
            self._failures[_key(provider)] = _Failure(time.monotonic(), error)

    def worked(self, provider: Provider) -> None:
        """Take note that *provider* answered."""
        if self._failures:
            with self._lock:
                self._failures.pop(_key(provider), None)


def _key(provider: Provider) -> tuple[str, str]:
    return provider.id, provider.base_url

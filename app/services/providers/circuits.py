"""Circuit breakers: a provider that is down is not asked again for some seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from app.errors import ServiceError
from app.services.providers.store import Provider

OPEN_FOR = 10.0
"""Seconds for which a provider that is down is not asked."""

_QUICK = 0.2  # seconds; a failure that comes sooner opens no circuit


@dataclass(frozen=True)
class _Failure:
    at: float
    error: ServiceError


class Circuits:
    """The providers that could not be reached a moment ago.

    An open circuit saves waiting. So it opens only when failing took a while: a port that refuses at once
    costs nothing, and a server that is started there can be used at once.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._lock = threading.Lock()

    def check(self, provider: Provider) -> None:
        """Check that *provider* may be asked.

        :raises ServiceError: while its circuit is open, the error that opened it
        """
        now = time.monotonic()
        with self._lock:
            failure = self._failures.get(_key(provider))
            if failure is None:
                return
            ago = now - failure.at
            if ago >= OPEN_FOR:  # this request may try; the others wait for its outcome
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
        """Tell whether *provider* is not asked now."""
        with self._lock:
            failure = self._failures.get(_key(provider))
        return failure is not None and time.monotonic() - failure.at < OPEN_FOR

    def failed(self, provider: Provider, error: ServiceError, seconds: float) -> None:
        """Open the circuit of *provider* where *error* says that there was no connection.

        :param seconds: how long the failure took
        """
        # Only the errors of a connection have a reason.
        if seconds < _QUICK or "reason" not in error.details or "circuit" in error.details:
            return
        with self._lock:
            self._failures[_key(provider)] = _Failure(time.monotonic(), error)

    def worked(self, provider: Provider) -> None:
        """Close the circuit of *provider*, which answered."""
        if self._failures:
            with self._lock:
                self._failures.pop(_key(provider), None)


def _key(provider: Provider) -> tuple[str, str]:
    return provider.id, provider.base_url

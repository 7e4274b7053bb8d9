"""Circuit breakers: no request is sent to a provider for some seconds after it was down."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from app.errors import ServiceError
from app.services.providers.store import Provider

OPEN_FOR = 10.0
"""Seconds in which no request is sent to a provider that was down."""

_QUICK = 0.2  # seconds; a quicker failure opens no circuit


@dataclass(frozen=True)
class _Failure:
    at: float
    error: ServiceError


class Circuits:
    """The providers that could not be reached in the last seconds.

    An open circuit saves clients from waiting for a connection. It opens only after a failure that took some
    time: a refused connection costs no time, and a provider that has just been started can be used at once.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._lock = threading.Lock()

    def check(self, provider: Provider) -> None:
        """Check that a request may be sent to *provider*.

        :raises ServiceError: the error that opened the circuit, while it is open
        """
        now = time.monotonic()
        with self._lock:
            failure = self._failures.get(_key(provider))
            if failure is None:
                return
            ago = now - failure.at
            if ago >= OPEN_FOR:  # let this request try; the circuit stays open for all others meanwhile
                self._failures[_key(provider)] = _Failure(now, failure.error)
                return
        left = OPEN_FOR - ago
        raise type(failure.error)(
            f"{failure.error.message} That was {ago:.0f} s ago; the next attempt is in {left:.0f} s.",
            hint=failure.error.hint,
            details={**failure.error.details, "circuit": "open"},
            retry_after=left,
        )

    def is_open(self, provider: Provider) -> bool:
        """Tell whether the circuit of *provider* is open, so that no request is sent."""
        with self._lock:
            failure = self._failures.get(_key(provider))
        return failure is not None and time.monotonic() - failure.at < OPEN_FOR

    def failed(self, provider: Provider, error: ServiceError, seconds: float) -> None:
        """Open the circuit of *provider* if *error* says that no connection could be made.

        :param seconds: the time until the failure
        """
        # Only errors of making a connection have a reason.
        if seconds < _QUICK or "reason" not in error.details or "circuit" in error.details:
            return
        with self._lock:
            self._failures[_key(provider)] = _Failure(time.monotonic(), error)

    def worked(self, provider: Provider) -> None:
        """Close the circuit of *provider*, because it answered."""
        if self._failures:  # every answer comes here: take the lock only when it matters
            with self._lock:
                self._failures.pop(_key(provider), None)


def _key(provider: Provider) -> tuple[str, str]:
    return provider.id, provider.base_url

"""Test whether a provider can be reached, and tell what to do when it cannot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone

from app.errors import (
    InvalidUpstreamKey,
    InvalidUpstreamResponse,
    ServerStopping,
    ServiceError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.schemas.providers import ProviderTest
from app.services.catalog.offers import Offers, ProviderOffers
from app.services.providers import Provider, ProviderStore


@dataclass(frozen=True)
class ProviderCheck:
    """Tests providers, and keeps each outcome as the provider's status."""

    providers: ProviderStore
    offers: Offers

    def test(self, id: str) -> ProviderTest:
        """Ask a provider for its models, and return the outcome. A failure of the provider raises no error.

        ``status`` is one of :data:`app.schemas.providers.TEST_STATUSES`.

        :raises ProviderNotFound: when no provider has this id
        """
        provider = self.providers.get(id)
        offers = self.offers.of(provider)
        started = time.monotonic()
        try:
            outcome = _found(provider, offers)
        except ServerStopping:  # says nothing about the provider
            raise
        except ServiceError as exc:
            outcome = {"status": _status(exc, offers), "message": exc.message}
            if exc.hint:
                outcome["hint"] = exc.hint
        outcome["provider"] = provider.id
        outcome["latency"] = round(time.monotonic() - started, 3)
        outcome["last_checked"] = (
            datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        )
        self.providers.update(id, status=outcome["status"], last_checked=outcome["last_checked"])
        return outcome


def _found(provider: Provider, offers: ProviderOffers) -> ProviderTest:
    """Return the outcome of a test that the provider answers: its version, and whether it has models."""
    version = offers.version()
    told: ProviderTest = {} if version is None else {"version": version}
    models = len(offers.all())
    if models:
        plural = "" if models == 1 else "s"
        message = f"{provider.name} answers and has {models} model{plural}."
        return {"status": "connected", "message": message, "models": models, **told}
    message = f"{provider.name} answers and has no models yet."
    return {"status": "no_models", "message": message, "hint": offers.when_empty, "models": 0, **told}


def _status(exc: ServiceError, offers: ProviderOffers) -> str:
    if isinstance(exc, UpstreamUnavailable):
        refused = exc.details.get("reason") == "connection_refused"
        return "connection_refused" if refused else "error"
    if isinstance(exc, UpstreamTimeout):
        return "timeout"
    if isinstance(exc, InvalidUpstreamKey):
        return "unauthorized"
    return offers.when_invalid if isinstance(exc, InvalidUpstreamResponse) else "error"

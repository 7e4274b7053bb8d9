"""When the second provider is asked, and what the client is told where it fails too."""

from __future__ import annotations

from app.errors import (
    ChatStopped,
    RateLimited,
    ServiceError,
    UpstreamBusy,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnavailable,
)

FALLBACK_AFTER = (UpstreamUnavailable, UpstreamBusy, UpstreamTimeout, UpstreamIncomplete, RateLimited)
"""The failures of the first provider after which the fallback is asked."""


def joined(first: ServiceError | None, second: ServiceError, request_id: str) -> ServiceError:
    """Return the error to report: the first one, with the fallback's in its details; but a stop is a stop."""
    if first is None or isinstance(second, ChatStopped):
        return second
    first.details = {**first.details, "fallback_error": second.body(request_id)}
    return first

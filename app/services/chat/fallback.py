"""Decide which errors lead to the fallback, and which error the client gets when that fails, too."""

from __future__ import annotations

from app.errors import (
    ChatStopped,
    RateLimited,
    ServerStopping,
    ServiceError,
    UpstreamBusy,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnavailable,
)

FALLBACK_AFTER = (UpstreamUnavailable, UpstreamBusy, UpstreamTimeout, UpstreamIncomplete, RateLimited)
"""The errors of the first provider that lead to the fallback: those that another provider may not have."""


def joined(first: ServiceError | None, second: ServiceError, request_id: str) -> ServiceError:
    """Return the error for the client: the first one, with the fallback's in its details.

    When the user or the end of this server stopped the fallback's answer, the client gets only that error.
    """
    if first is None or isinstance(second, ChatStopped | ServerStopping):
        return second
    first.details = {**first.details, "fallback_error": second.body(request_id)}
    return first

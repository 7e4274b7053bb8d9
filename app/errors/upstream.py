"""Failures of a provider, and of what a provider does for this program."""

from __future__ import annotations

from http import HTTPStatus

from app.errors.base import ServiceError


class UpstreamError(ServiceError):
    """The provider failed in a way that has no class of its own."""

    error_type = "upstream_error"


class InvalidUpstreamKey(UpstreamError):
    """The provider refuses the API key, or wants one."""

    status = HTTPStatus.UNAUTHORIZED
    error_type = "invalid_api_key"


class UpstreamRejected(UpstreamError):
    """The provider understood the request and will not serve it."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "upstream_rejected"


class RateLimited(UpstreamError):
    """The provider wants fewer requests."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    error_type = "rate_limited"


class UpstreamUnavailable(UpstreamError):
    """Nothing listens at the provider's address, or it cannot be reached."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "upstream_unavailable"


class UpstreamBusy(UpstreamError):
    """The provider is there and cannot take the request now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "upstream_busy"


class UpstreamTimeout(UpstreamError):
    """The provider did not answer in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    error_type = "upstream_timeout"


class PullWaits(UpstreamTimeout):
    """The pull waits for the part of the day in which pulls may run."""

    error_type = "pull_waits"


class InvalidUpstreamResponse(UpstreamError):
    """The provider answered something that is not what its API promises."""

    error_type = "invalid_upstream_response"


class UpstreamIncomplete(UpstreamError):
    """The answer ended before its terminator came."""

    error_type = "upstream_incomplete"


class EmptyResponse(UpstreamError):
    """The provider's answer holds no message."""

    error_type = "empty_response"


class CreateFailed(UpstreamError):
    """The model could not be made."""

    error_type = "create_failed"


class PullFailed(UpstreamError):
    """The model could not be downloaded."""

    error_type = "pull_failed"

"""Errors of providers, and of the models that a provider pulls or creates."""

from __future__ import annotations

from http import HTTPStatus

from app.errors.base import ServiceError


class UpstreamError(ServiceError):
    """The provider failed in a way that has no class of its own."""

    error_type = "upstream_error"


class InvalidUpstreamKey(UpstreamError):
    """The provider refuses the API key, or requires one."""

    status = HTTPStatus.UNAUTHORIZED
    error_type = "invalid_api_key"


class UpstreamRejected(UpstreamError):
    """The provider refuses the request."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "upstream_rejected"


class RateLimited(UpstreamError):
    """The provider allows no more requests for now."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    error_type = "rate_limited"


class UpstreamUnavailable(UpstreamError):
    """Nothing listens at the provider's address, or it cannot be reached."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "upstream_unavailable"


class UpstreamBusy(UpstreamError):
    """The provider is running but cannot take the request now."""

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
    """The provider's answer does not follow its API."""

    error_type = "invalid_upstream_response"


class UpstreamIncomplete(UpstreamError):
    """The provider's answer ended before it was complete."""

    error_type = "upstream_incomplete"


class EmptyResponse(UpstreamError):
    """The provider's answer holds no message."""

    error_type = "empty_response"


class CreateFailed(UpstreamError):
    """The model could not be created."""

    error_type = "create_failed"


class PullFailed(UpstreamError):
    """The model could not be downloaded."""

    error_type = "pull_failed"

"""What can go wrong, and what a client is told of it.

    ServiceError                500 internal_error
    ├── InvalidRequest          400 invalid_request
    │   ├── InvalidModelName    400 invalid_model_name
    │   ├── InvalidUpload       400 invalid_upload
    │   ├── RegistryNotAllowed  400 registry_not_allowed
    │   ├── ProviderDisabled    400 provider_disabled
    │   ├── CapabilityMissing   400 capability_missing
    │   └── NotSupported        400 not_supported
    ├── NotFound                404 not_found
    │   ├── ProviderNotFound    404 provider_not_found
    │   ├── PullNotFound        404 pull_not_found
    │   ├── ChatNotRunning      404 chat_not_running
    │   ├── ConversationNotFound 404 conversation_not_found
    │   ├── NoPreviousVersion   404 no_previous_version
    │   ├── ModelNotInRegistry  404 model_not_in_registry
    │   └── ModelNotFound       404 model_not_found
    ├── ChatStopped             409 chat_stopped
    ├── ModelExists             409 model_exists
    ├── ModelProtected          409 model_protected
    ├── PullFinished            409 pull_finished
    ├── PullCancelled           409 pull_cancelled
    ├── PullActive              409 pull_active
    ├── IdempotencyKeyReused    422 idempotency_key_reused
    ├── ConversationBusy        409 conversation_busy
    ├── DiskFull                507 disk_full
    ├── ProviderExists          409 provider_exists
    ├── ProviderBuiltIn         409 provider_built_in
    ├── StorageFailed           500 storage_failed
    ├── ServerStopping          503 server_stopping
    └── UpstreamError           500 upstream_error
        ├── InvalidUpstreamKey  401 invalid_api_key
        ├── UpstreamRejected    400 upstream_rejected
        ├── RateLimited         429 rate_limited
        ├── UpstreamUnavailable 503 upstream_unavailable
        ├── UpstreamBusy        503 upstream_busy
        ├── UpstreamTimeout     504 upstream_timeout
        │   └── PullWaits       504 pull_waits
        ├── InvalidUpstreamResponse 500 invalid_upstream_response
        ├── UpstreamIncomplete  500 upstream_incomplete
        ├── EmptyResponse       500 empty_response
        ├── CreateFailed        500 create_failed
        └── PullFailed          500 pull_failed

A service raises one of these ``from`` its cause; :mod:`app.api.base` answers it with the one error body.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of every failure a service reports to its caller.

    :param message: a sentence that a person can act on
    :param hint: the command or setting that mends it
    :param details: facts for a program, never secrets
    :param retry_after: seconds after which another try makes sense
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    error_type: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details or {}
        if retry_after is not None:  # in the details too: what ends a stream has no headers
            self.details = {**self.details, "retry_after": max(1, math.ceil(retry_after))}

    @property
    def retry_after(self) -> int | None:
        """The seconds after which another try makes sense, where that is known."""
        seconds: int | None = self.details.get("retry_after")
        return seconds

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the one error body."""
        return error_body(self.message, self.error_type, request_id, hint=self.hint, details=self.details)


def kept(error: ServiceError) -> dict[str, Any]:
    """Return *error* as it can be kept in JSON."""
    return {
        "error": error.message,
        "error_type": error.error_type,
        "hint": error.hint,
        "details": error.details,
    }


def restored(kept_error: dict[str, Any]) -> ServiceError:
    """Return the error that was :func:`kept`."""
    classes = [ServiceError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    found = next(cls for cls in classes if cls.error_type == kept_error["error_type"])
    return found(kept_error["error"], hint=kept_error["hint"], details=kept_error["details"])


def error_body(
    message: str,
    error_type: str,
    request_id: str,
    *,
    hint: str = "",
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body that every failure answers with."""
    body: dict[str, Any] = {"error": message, "error_type": error_type}
    if hint:
        body["hint"] = hint
    if details:
        body["details"] = details
    return {**body, "request_id": request_id}


class InvalidRequest(ServiceError):
    """The request asks for something that cannot be."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "invalid_request"


class InvalidModelName(InvalidRequest):
    """The model's name does not follow Ollama's grammar."""

    error_type = "invalid_model_name"


class InvalidUpload(InvalidRequest):
    """What was sent is not a whole GGUF file, or not the one that was announced."""

    error_type = "invalid_upload"


class RegistryNotAllowed(InvalidRequest):
    """The model's name points to a registry that the settings do not allow."""

    error_type = "registry_not_allowed"


class ProviderDisabled(InvalidRequest):
    """The provider is switched off in the settings."""

    error_type = "provider_disabled"


class CapabilityMissing(InvalidRequest):
    """The model cannot do what the request needs."""

    error_type = "capability_missing"


class NotSupported(InvalidRequest):
    """The provider does not know what the request asks for."""

    error_type = "not_supported"


class NotFound(ServiceError):
    """What the request names is not there."""

    status = HTTPStatus.NOT_FOUND
    error_type = "not_found"


class ProviderNotFound(NotFound):
    """No provider has this id."""

    error_type = "provider_not_found"


class ModelNotFound(NotFound):
    """The provider does not have this model."""

    error_type = "model_not_found"


class PullNotFound(NotFound):
    """No pull has this id."""

    error_type = "pull_not_found"


class ChatNotRunning(NotFound):
    """No answer with this request id is being made."""

    error_type = "chat_not_running"


class ConversationNotFound(NotFound):
    """No conversation has this id."""

    error_type = "conversation_not_found"


class NoPreviousVersion(NotFound):
    """No version before the installed one is kept."""

    error_type = "no_previous_version"


class ModelNotInRegistry(NotFound):
    """The registry has no model of this name."""

    error_type = "model_not_in_registry"


class IdempotencyKeyReused(ServiceError):
    """The key of a request was sent before, with another one."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    error_type = "idempotency_key_reused"


class ChatStopped(ServiceError):
    """The answer was stopped by a request."""

    status = HTTPStatus.CONFLICT
    error_type = "chat_stopped"


class DiskFull(ServiceError):
    """The model does not fit on the disk."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    error_type = "disk_full"


class ModelExists(ServiceError):
    """A model of this name is installed already."""

    status = HTTPStatus.CONFLICT
    error_type = "model_exists"


class ModelProtected(ServiceError):
    """The settings say that this model is neither to be deleted nor replaced."""

    status = HTTPStatus.CONFLICT
    error_type = "model_protected"


class PullFinished(ServiceError):
    """The pull is over: there is nothing to pause, resume or cancel."""

    status = HTTPStatus.CONFLICT
    error_type = "pull_finished"


class PullCancelled(ServiceError):
    """The pull was cancelled while somebody waited for it."""

    status = HTTPStatus.CONFLICT
    error_type = "pull_cancelled"


class PullActive(ServiceError):
    """The pull is not over yet."""

    status = HTTPStatus.CONFLICT
    error_type = "pull_active"


class ConversationBusy(ServiceError):
    """An answer is being made in the conversation."""

    status = HTTPStatus.CONFLICT
    error_type = "conversation_busy"


class ProviderExists(ServiceError):
    """A provider with this id is there already."""

    status = HTTPStatus.CONFLICT
    error_type = "provider_exists"


class ProviderBuiltIn(ServiceError):
    """The provider is shipped with the program and cannot be deleted."""

    status = HTTPStatus.CONFLICT
    error_type = "provider_built_in"


class ServerStopping(ServiceError):
    """This server is being stopped."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "server_stopping"


class StorageFailed(ServiceError):
    """A file of the data folder cannot be read or written."""

    error_type = "storage_failed"


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

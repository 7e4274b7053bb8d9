"""Errors of requests: a request is invalid, names something unknown, or conflicts with the present state."""

from __future__ import annotations

from http import HTTPStatus

from app.errors.base import ServiceError


class InvalidRequest(ServiceError):
    """The request is invalid."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "invalid_request"


class InvalidModelName(InvalidRequest):
    """The model's name does not follow Ollama's grammar."""

    error_type = "invalid_model_name"


class InvalidUpload(InvalidRequest):
    """The uploaded file is no GGUF file, is incomplete, or does not have the digest of the request."""

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
    """The provider does not support something that the request asks for."""

    error_type = "not_supported"


class NotFound(ServiceError):
    """Something that the request names does not exist."""

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
    """No running answer has this request id."""

    error_type = "chat_not_running"


class ConversationNotFound(NotFound):
    """No conversation has this id."""

    error_type = "conversation_not_found"


class NoPreviousVersion(NotFound):
    """No earlier version of the model is kept."""

    error_type = "no_previous_version"


class ModelNotInRegistry(NotFound):
    """The registry has no model of this name."""

    error_type = "model_not_in_registry"


class Conflict(ServiceError):
    """Base of errors for requests that the present state does not allow; each subclass has its own slug."""

    status = HTTPStatus.CONFLICT


class ChatStopped(Conflict):
    """A request stopped the answer."""

    error_type = "chat_stopped"


class ModelExists(Conflict):
    """A model of this name is installed already."""

    error_type = "model_exists"


class ModelProtected(Conflict):
    """The settings protect this model from being deleted or replaced."""

    error_type = "model_protected"


class PullFinished(Conflict):
    """The pull is finished: it cannot be paused, resumed or cancelled."""

    error_type = "pull_finished"


class PullCancelled(Conflict):
    """The pull was cancelled while the client waited for it."""

    error_type = "pull_cancelled"


class PullActive(Conflict):
    """The pull is not finished yet."""

    error_type = "pull_active"


class ConversationBusy(Conflict):
    """The conversation has a running answer."""

    error_type = "conversation_busy"


class ProviderExists(Conflict):
    """A provider with this id exists already."""

    error_type = "provider_exists"


class ProviderBuiltIn(Conflict):
    """The provider is shipped with the program and cannot be deleted."""

    error_type = "provider_built_in"


class IdempotencyKeyReused(ServiceError):
    """The request's Idempotency-Key was used before, for a different request."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    error_type = "idempotency_key_reused"

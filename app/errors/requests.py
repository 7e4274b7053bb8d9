"""Failures of a request: it is wrong, what it names is not there, or it comes at the wrong time."""

from __future__ import annotations

from http import HTTPStatus

from app.errors.base import ServiceError


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


class Conflict(ServiceError):
    """Base of what the present state does not allow; each has a slug of its own."""

    status = HTTPStatus.CONFLICT


class ChatStopped(Conflict):
    """The answer was stopped by a request."""

    error_type = "chat_stopped"


class ModelExists(Conflict):
    """A model of this name is installed already."""

    error_type = "model_exists"


class ModelProtected(Conflict):
    """The settings say that this model is neither to be deleted nor replaced."""

    error_type = "model_protected"


class PullFinished(Conflict):
    """The pull is over: there is nothing to pause, resume or cancel."""

    error_type = "pull_finished"


class PullCancelled(Conflict):
    """The pull was cancelled while somebody waited for it."""

    error_type = "pull_cancelled"


class PullActive(Conflict):
    """The pull is not over yet."""

    error_type = "pull_active"


class ConversationBusy(Conflict):
    """An answer is being made in the conversation."""

    error_type = "conversation_busy"


class ProviderExists(Conflict):
    """A provider with this id is there already."""

    error_type = "provider_exists"


class ProviderBuiltIn(Conflict):
    """The provider is shipped with the program and cannot be deleted."""

    error_type = "provider_built_in"


class IdempotencyKeyReused(ServiceError):
    """The key of a request was sent before, with another one."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    error_type = "idempotency_key_reused"

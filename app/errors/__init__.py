"""The errors that a client can get, with their HTTP statuses and slugs.

    ServiceError                500 internal_error
    ├── InvalidRequest          400 invalid_request            requests.py
    │   ├── InvalidModelName    400 invalid_model_name
    │   ├── InvalidUpload       400 invalid_upload
    │   ├── RegistryNotAllowed  400 registry_not_allowed
    │   ├── ProviderDisabled    400 provider_disabled
    │   ├── CapabilityMissing   400 capability_missing
    │   └── NotSupported        400 not_supported
    ├── NotFound                404 not_found
    │   ├── ProviderNotFound    404 provider_not_found
    │   ├── ModelNotFound       404 model_not_found
    │   ├── PullNotFound        404 pull_not_found
    │   ├── ChatNotRunning      404 chat_not_running
    │   ├── ConversationNotFound 404 conversation_not_found
    │   ├── NoPreviousVersion   404 no_previous_version
    │   └── ModelNotInRegistry  404 model_not_in_registry
    ├── Conflict                409 (has no slug: only its subclasses are raised)
    │   ├── ChatStopped         409 chat_stopped
    │   ├── ModelExists         409 model_exists
    │   ├── ModelProtected      409 model_protected
    │   ├── PullFinished        409 pull_finished
    │   ├── PullCancelled       409 pull_cancelled
    │   ├── PullActive          409 pull_active
    │   ├── ConversationBusy    409 conversation_busy
    │   ├── ProviderExists      409 provider_exists
    │   └── ProviderBuiltIn     409 provider_built_in
    ├── IdempotencyKeyReused    422 idempotency_key_reused
    ├── DiskFull                507 disk_full                  server.py
    ├── StorageFailed           503 storage_failed (507 when a disk is full)
    ├── ServerBusy              503 server_busy
    ├── ServerStopping          503 server_stopping
    └── UpstreamError           500 upstream_error             upstream.py
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

A service raises one of these ``from`` its cause; :mod:`app.api.base` answers the client with the error body.
"""

from __future__ import annotations

from app.errors.base import (
    ServiceError,
    error_body,
    kept,
    restored,
    server_failed,
)
from app.errors.requests import (
    CapabilityMissing,
    ChatNotRunning,
    ChatStopped,
    Conflict,
    ConversationBusy,
    ConversationNotFound,
    IdempotencyKeyReused,
    InvalidModelName,
    InvalidRequest,
    InvalidUpload,
    ModelExists,
    ModelNotFound,
    ModelNotInRegistry,
    ModelProtected,
    NoPreviousVersion,
    NotFound,
    NotSupported,
    ProviderBuiltIn,
    ProviderDisabled,
    ProviderExists,
    ProviderNotFound,
    PullActive,
    PullCancelled,
    PullFinished,
    PullNotFound,
    RegistryNotAllowed,
)
from app.errors.server import (
    DiskFull,
    ServerBusy,
    ServerStopping,
    StorageFailed,
)
from app.errors.upstream import (
    CreateFailed,
    EmptyResponse,
    InvalidUpstreamKey,
    InvalidUpstreamResponse,
    PullFailed,
    PullWaits,
    RateLimited,
    UpstreamBusy,
    UpstreamError,
    UpstreamIncomplete,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

__all__ = [
    "CapabilityMissing",
    "ChatNotRunning",
    "ChatStopped",
    "Conflict",
    "ConversationBusy",
    "ConversationNotFound",
    "CreateFailed",
    "DiskFull",
    "EmptyResponse",
    "IdempotencyKeyReused",
    "InvalidModelName",
    "InvalidRequest",
    "InvalidUpload",
    "InvalidUpstreamKey",
    "InvalidUpstreamResponse",
    "ModelExists",
    "ModelNotFound",
    "ModelNotInRegistry",
    "ModelProtected",
    "NoPreviousVersion",
    "NotFound",
    "NotSupported",
    "ProviderBuiltIn",
    "ProviderDisabled",
    "ProviderExists",
    "ProviderNotFound",
    "PullActive",
    "PullCancelled",
    "PullFailed",
    "PullFinished",
    "PullNotFound",
    "PullWaits",
    "RateLimited",
    "RegistryNotAllowed",
    "ServerBusy",
    "ServerStopping",
    "ServiceError",
    "StorageFailed",
    "UpstreamBusy",
    "UpstreamError",
    "UpstreamIncomplete",
    "UpstreamRejected",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "error_body",
    "kept",
    "restored",
    "server_failed",
]

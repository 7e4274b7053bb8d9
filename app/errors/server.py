"""Errors of this server and its machine."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from app.errors.base import ServiceError


class DiskFull(ServiceError):
    """The model does not fit on the disk."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    error_type = "disk_full"


class StorageFailed(ServiceError):
    """The database, or a file in the data folder, cannot be read or written.

    `details.reason` says why, for example `locked`. For `full`, the status is 507.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "storage_failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details, retry_after=retry_after)
        if self.details.get("reason") == "full":
            self.status = HTTPStatus.INSUFFICIENT_STORAGE


class ServerStopping(ServiceError):
    """This server is being stopped."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "server_stopping"

    def __init__(
        self,
        message: str = "The server is stopping.",
        *,
        hint: str = "Ask again in a few seconds, if the server is being started again.",
        details: dict[str, Any] | None = None,
        retry_after: float | None = 5,
    ) -> None:
        super().__init__(message, hint=hint, details=details, retry_after=retry_after)


class ServerBusy(ServiceError):
    """This server has too many connections, or receives too much at once."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "server_busy"

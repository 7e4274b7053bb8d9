"""Errors of this server and its machine."""

from __future__ import annotations

from http import HTTPStatus

from app.errors.base import ServiceError


class DiskFull(ServiceError):
    """The model does not fit on the disk."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    error_type = "disk_full"


class StorageFailed(ServiceError):
    """A file in the data folder cannot be read or written."""

    error_type = "storage_failed"


class ServerStopping(ServiceError):
    """This server is being stopped."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "server_stopping"


class ServerBusy(ServiceError):
    """This server has too many connections, or receives too much at once."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    error_type = "server_busy"

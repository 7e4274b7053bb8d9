"""The base class of all errors, and their forms outside of Python: error bodies and stored errors."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of every error that a service reports to its caller.

    :param message: a sentence that tells a person what is wrong
    :param hint: the command or setting that solves the problem
    :param details: facts for a program, never secrets
    :param retry_after: seconds after which the client should try again
    """

    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR
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
        if retry_after is not None:  # in the details, because an error that ends a stream has no headers
            self.details = {**self.details, "retry_after": max(1, math.ceil(retry_after))}

    @property
    def retry_after(self) -> int | None:
        """The seconds after which the client should try again; None if unknown."""
        seconds: int | None = self.details.get("retry_after")
        return seconds

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the error body for a client."""
        return error_body(self.message, self.error_type, request_id, hint=self.hint, details=self.details)


def kept(error: ServiceError) -> dict[str, Any]:
    """Return *error* as JSON values, for storing it."""
    return {
        "error": error.message,
        "error_type": error.error_type,
        "hint": error.hint,
        "details": error.details,
    }


def restored(kept_error: dict[str, Any]) -> ServiceError:
    """Return the error that :func:`kept` stored; a plain ServiceError if no class has its slug any more."""
    classes = [ServiceError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    found = next((cls for cls in classes if cls.error_type == kept_error["error_type"]), ServiceError)
    return found(kept_error["error"], hint=kept_error["hint"], details=kept_error["details"])


def server_failed(hint: str = "") -> ServiceError:
    """Return the error for a fault of this program; its exception belongs into the log only."""
    return ServiceError("The server failed. Its log says more.", hint=hint)


def error_body(
    message: str,
    error_type: str,
    request_id: str,
    *,
    hint: str = "",
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an error body; every error of this API has this form."""
    body: dict[str, Any] = {"error": message, "error_type": error_type}
    if hint:
        body["hint"] = hint
    if details:
        body["details"] = details
    return {**body, "request_id": request_id}

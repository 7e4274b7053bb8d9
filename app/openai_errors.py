"""Errors in the shape of OpenAI's API, for the routes below ``/v1``."""

from __future__ import annotations

from typing import Any

PREFIX = "/v1"
"""The path of the OpenAI-compatible API, whose errors have this shape."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ABOUT_THE_MODEL = {
    "capability_missing",
    "invalid_model_name",
    "model_not_found",
    "provider_disabled",
    "provider_not_found",
}


def speaks_openai(path: str) -> bool:
    """Tell whether *path* belongs to the OpenAI-compatible API."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def openai_error(body: dict[str, Any], status: int) -> dict[str, Any]:
    """Return our error *body* as ``{"error": {"message", "type", "param", "code"}}``.

    See https://platform.openai.com/docs/guides/error-codes. Clients show only the message, so it includes the
    hint.
    """
    message = " ".join(filter(None, [body["error"], body.get("hint")]))
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": _param(body), "code": body["error_type"]}}


def _param(body: dict[str, Any]) -> str | None:
    """Return the name of the invalid field; None when the error is about no field."""
    if body["error_type"] in _ABOUT_THE_MODEL:
        return "model"
    if body["error_type"] != "invalid_request":
        return None
    return next((name for name in body.get("details", ()) if name not in {"body", "_schema"}), None)

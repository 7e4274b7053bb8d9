"""Errors in the shape that clients of OpenAI's API read."""

from __future__ import annotations

from typing import Any

PREFIX = "/v1"
"""Where the API is in which errors have this shape."""

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
    """Tell whether the client that asks for *path* expects OpenAI's shape."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def openai_error(body: dict[str, Any], status: int) -> dict[str, Any]:
    """Return our error *body* as ``{"error": {"message", "type", "param", "code"}}``.

    https://platform.openai.com/docs/guides/error-codes: clients show the message, so the hint is in it.
    """
    message = " ".join(filter(None, [body["error"], body.get("hint")]))
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": _param(body), "code": body["error_type"]}}


def _param(body: dict[str, Any]) -> str | None:
    """Name the field at fault."""
    if body["error_type"] in _ABOUT_THE_MODEL:
        return "model"
    if body["error_type"] != "invalid_request":
        return None
    return next((name for name in body.get("details", ()) if name not in {"body", "_schema"}), None)

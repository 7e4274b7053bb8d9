"""The routes of a running backend, from its own OpenAPI description."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.hostile.processes import Backend

METHODS = ("get", "post", "put", "patch", "delete")
PUBLIC = ("/api/health", "/api/docs", "/api/openapi.json")


def description(backend: Backend) -> dict[str, Any]:
    found: dict[str, Any] = backend.get("/api/openapi.json")
    return found


def filled(template: str, value: str = "ollama") -> str:
    """Return a path with *value* for each of its parameters."""
    return re.sub(r"{\w+}", value, template)


def routes(backend: Backend) -> Iterator[tuple[str, str, bool]]:
    """Yield the method, the path's template and whether a body is expected."""
    for path, operations in description(backend)["paths"].items():
        for method in METHODS:
            if method in operations:
                yield method.upper(), path, "requestBody" in operations[method]

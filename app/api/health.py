"""``/api/health``: the health of this server."""

from __future__ import annotations

from typing import Any

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.health import HealthSchema
from app.security import has_key
from app.version import __version__

blp = Blueprint("health", __name__, description="The server itself")


@blp.get("/api/health")
@blp.response(200, HealthSchema)
def get_health() -> dict[str, Any]:
    """Get the health of this server; providers are not checked

    It is `degraded` while a file in the data folder is damaged, or while background work fails. If the server
    has a key and the request does not, the answer tells neither the version nor the reasons.
    """
    found = [services.providers.damage, services.settings.damage, *services.failures]
    warnings = [warning for warning in found if warning]
    status = "degraded" if warnings else "ok"
    if not has_key(services.config):
        return {"status": status, "version": "", "warnings": []}
    return {"status": status, "version": __version__, "warnings": warnings}

"""``/api/providers/ollama/disk``: the disk space of the models."""

from __future__ import annotations

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.disk import Disk, DiskSchema

blp = Blueprint(
    "disk", __name__, url_prefix="/api/providers/ollama", description="The disk space of the models"
)


@blp.get("/disk")
@blp.response(200, DiskSchema)
@blp.alt_response(503, schema=ErrorSchema, description="Ollama is not running")
def get_disk() -> Disk:
    """Get the disk space of the models, and the bytes that deleting each model would free"""
    return services.disk.usage()

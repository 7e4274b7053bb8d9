"""``/api/providers/ollama``: the models that are installed there, and their downloads."""

from __future__ import annotations

from typing import Any

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.models import ModelListSchema

blp = Blueprint("models", __name__, url_prefix="/api/providers/ollama", description="The models of Ollama")


@blp.get("/models")
@blp.response(200, ModelListSchema)
@blp.alt_response(503, schema=ErrorSchema, description="Ollama is not running")
@blp.alt_response(504, schema=ErrorSchema, description="Ollama did not answer in time")
def list_models() -> dict[str, Any]:
    """List the installed models, newest first"""
    return services.ollama.list()

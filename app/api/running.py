"""``/api/providers/ollama/running``, ``load`` and ``unload``: the models in memory."""

from __future__ import annotations

from typing import Any

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.running import (
    LoadedModel,
    LoadedSchema,
    LoadSchema,
    RunningList,
    RunningListSchema,
    UnloadedModel,
    UnloadedSchema,
    UnloadSchema,
)

blp = Blueprint(
    "running", __name__, url_prefix="/api/providers/ollama", description="The models in Ollama's memory"
)


@blp.get("/running")
@blp.response(200, RunningListSchema)
def list_running() -> RunningList:
    """List the models in memory"""
    return services.memory.list()


@blp.post("/load")
@blp.arguments(LoadSchema, example={"model": "llama3.2:1b", "keep_alive": "10m"})
@blp.response(200, LoadedSchema)
@blp.alt_response(
    404, schema=ErrorSchema, description="The model is not installed; `details` list those that are"
)
def load_model(body: dict[str, Any]) -> LoadedModel:
    """Load a model into memory, and wait until it is loaded"""
    loaded = services.memory.load(**body)
    services.usage.touch("ollama", body["model"])
    return loaded


@blp.post("/unload")
@blp.arguments(UnloadSchema, example={"model": "llama3.2:1b"})
@blp.response(200, UnloadedSchema)
@blp.alt_response(
    404, schema=ErrorSchema, description="The model is not installed; `details` list those that are"
)
def unload_model(body: dict[str, Any]) -> UnloadedModel:
    """Unload a model from memory

    `loaded` is still true if the model is answering a request: it is unloaded after that.
    """
    return services.memory.unload(**body)

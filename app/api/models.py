"""``/api/providers/ollama/models``: the models that are installed on the Ollama server."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from marshmallow import RAISE

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.models import ModelListingSchema, ModelQuerySchema
from app.schemas.show import (
    CopiedModel,
    CopiedSchema,
    CopySchema,
    DeletedModel,
    DeletedSchema,
    DeleteQuerySchema,
    ModelDetail,
    ModelDetailSchema,
)

blp = Blueprint("models", __name__, url_prefix="/api/providers/ollama", description="The models of Ollama")


@blp.get("/models")
@blp.arguments(ModelQuerySchema, location="query", unknown=RAISE)
@blp.response(200, ModelListingSchema)
@blp.alt_response(304, description="The list has not changed since the ETag in `If-None-Match`")
@blp.alt_response(503, schema=ErrorSchema, description="Ollama is not running")
@blp.alt_response(504, schema=ErrorSchema, description="Ollama did not answer in time")
def list_models(query: dict[str, Any]) -> Response:
    """List the installed models, the newest first"""
    answer = jsonify(ModelListingSchema().dump(services.models.list(**query)))
    answer.add_etag(weak=True)
    answer.make_conditional(request)
    return answer


@blp.get("/models/<path:model>")
@blp.response(200, ModelDetailSchema)
@blp.alt_response(
    404, schema=ErrorSchema, description="The model is not installed; `details` list those that are"
)
def get_model(model: str) -> ModelDetail:
    """Get the details of a model"""
    return services.models.get(model)


@blp.delete("/models/<path:model>")
@blp.arguments(DeleteQuerySchema, location="query", unknown=RAISE)
@blp.response(200, DeletedSchema)
@blp.alt_response(
    404, schema=ErrorSchema, description="The model is not installed; `details` list those that are"
)
@blp.alt_response(409, schema=ErrorSchema, description="The settings protect the model")
def delete_model(query: dict[str, Any], model: str) -> DeletedModel:
    """Delete a model, and get the bytes that this frees

    The model is unloaded first. Layers that other models use stay. Former versions that updates have kept
    stay too, unless `versions` is true. With `dry_run` nothing is deleted.
    """
    return services.removal.delete(model, **query)


@blp.post("/copy")
@blp.arguments(CopySchema, example={"source": "llama3.2:1b", "destination": "mine"})
@blp.response(200, CopiedSchema)
@blp.alt_response(
    404, schema=ErrorSchema, description="The model is not installed; `details` list those that are"
)
@blp.alt_response(
    409, schema=ErrorSchema, description="The name is taken and `overwrite` is false, or it is protected"
)
def copy_model(body: dict[str, Any]) -> CopiedModel:
    """Copy a model to another name; the copy shares its layers"""
    return services.models.copy(**body)

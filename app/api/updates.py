"""``/api/providers/ollama/updates`` and ``rollback``: newer and former versions of models."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from marshmallow import RAISE

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.updates import (
    Rollback,
    RollbackRequestSchema,
    RollbackSchema,
    UpdateList,
    UpdateListSchema,
    UpdateQuerySchema,
    UpdateRequestSchema,
    UpdateResult,
    UpdateResultSchema,
)

blp = Blueprint(
    "updates", __name__, url_prefix="/api/providers/ollama", description="Updates of Ollama's models"
)


@blp.get("/updates")
@blp.arguments(UpdateQuerySchema, location="query", unknown=RAISE)
@blp.response(200, UpdateListSchema)
@blp.alt_response(503, schema=ErrorSchema, description="Ollama is not running")
def list_updates(query: dict[str, Any]) -> UpdateList:
    """Compare the installed models with their registries' versions; nothing is downloaded"""
    return services.updates.check(refresh=query["refresh"])


@blp.post("/updates")
@blp.arguments(UpdateRequestSchema, example={"models": ["llama3.2:1b"]})
@blp.response(202, UpdateResultSchema)
@blp.alt_response(200, schema=UpdateResultSchema, description="With `dry_run`: what would be updated")
@blp.alt_response(404, schema=ErrorSchema, description="One of the models is not installed")
def start_updates(body: dict[str, Any]) -> UpdateResult | Response:
    """Update outdated models

    The installed version of each model is kept under another name, for a rollback. Models in memory are
    skipped unless `include_loaded` is true. Pinned models are skipped unless `models` names them.
    """
    result = services.updates.start(
        body.get("models"), include_loaded=body["include_loaded"], dry_run=body["dry_run"]
    )
    return jsonify(UpdateResultSchema().dump(result)) if body["dry_run"] else result


@blp.post("/rollback")
@blp.arguments(RollbackRequestSchema, example={"model": "llama3.2:1b"})
@blp.response(200, RollbackSchema)
@blp.alt_response(404, schema=ErrorSchema, description="No earlier version of the model is kept")
@blp.alt_response(409, schema=ErrorSchema, description="The model is being updated or pulled")
def roll_back(body: dict[str, Any]) -> Rollback:
    """Roll a model back to the version before its last update

    The replaced version is kept: another rollback installs it again.
    """
    return services.versions.rollback(body["model"])

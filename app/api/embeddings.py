"""``/api/embeddings``: vectors of texts."""

from __future__ import annotations

from flask import g

from app.api.base import Blueprint
from app.body_limits import CHAT_BODY_LIMIT, accepts
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.embeddings import (
    EmbeddingRequest,
    EmbeddingRequestSchema,
    EmbeddingResponse,
    EmbeddingResponseSchema,
)
from app.streaming import last_event

blp = Blueprint("embeddings", __name__, url_prefix="/api/embeddings", description="Vectors of texts")


@blp.post("")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(EmbeddingRequestSchema, example={"input": ["The sky", "The sea"], "model": "nomic-embed-text"})
@blp.response(200, EmbeddingResponseSchema)
@blp.alt_response(400, schema=ErrorSchema, description="Invalid input, or the model makes no embeddings")
@blp.alt_response(404, schema=ErrorSchema, description="No such provider or model")
def embed(body: EmbeddingRequest) -> EmbeddingResponse:
    """Make embeddings of texts

    The vectors are in the order of the texts.
    """
    return last_event(services.embeddings.embed(body, g.request_id))

"""Embeddings: the requests and the answers."""

from __future__ import annotations

from typing import TypedDict

from marshmallow import fields, validate

from app.schemas.base import UpstreamSchema
from app.schemas.chat import TargetSchema
from app.schemas.fields import TextsField, no_controls, not_blank

MAX_TEXTS = 2048


class EmbeddingRequestSchema(TargetSchema):
    """The texts, and the provider and the model that embed them."""

    input = TextsField(
        required=True,
        count=validate.Length(1, MAX_TEXTS, error=f"Give 1 to {MAX_TEXTS} texts."),
        metadata={"description": f"A text, or a list of 1 to {MAX_TEXTS} texts"},
    )
    model = fields.Str(
        allow_none=True,
        validate=[not_blank("Model"), no_controls, validate.Length(max=300)],
        metadata={
            "description": "A model that makes embeddings; default: on Ollama the newest installed one, else "
            "the model in the provider's settings"
        },
    )
    dimensions = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "The length of each vector, if the model supports a choice"},
    )


class EmbeddingRequest(TypedDict, total=False):
    """What :class:`EmbeddingRequestSchema` loads."""

    input: list[str]
    provider: str | None
    model: str | None
    dimensions: int | None


class EmbeddingUsage(TypedDict):
    """What :class:`EmbeddingUsageSchema` shows."""

    prompt_tokens: int | None
    total_tokens: int | None


class EmbeddingResponse(TypedDict):
    """What :class:`EmbeddingResponseSchema` shows."""

    embeddings: list[list[float]]
    provider: str
    model: str
    usage: EmbeddingUsage
    response_time: float
    request_id: str


class EmbeddingUsageSchema(UpstreamSchema):
    """The tokens of the texts; null if the provider does not tell them."""

    prompt_tokens = fields.Int(allow_none=True)
    total_tokens = fields.Int(allow_none=True)


class EmbeddingResponseSchema(UpstreamSchema):
    """One vector for each text, in the same order."""

    # Raw: the service has checked the vectors, and checking millions of numbers again would take long.
    embeddings = fields.Raw(
        metadata={"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    )
    provider = fields.Str(metadata={"description": "The id of the provider that answered"})
    model = fields.Str(metadata={"description": "The model that answered"})
    usage = fields.Nested(EmbeddingUsageSchema)
    response_time = fields.Float(metadata={"description": "Seconds from the request to the answer"})
    request_id = fields.Str()

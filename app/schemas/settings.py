"""The settings that a person changes while the program runs."""

from __future__ import annotations

from marshmallow import fields, validate

from app.schemas.base import RequestSchema

_seconds = validate.Range(min=0, min_inclusive=False, max=86400)


class TimeoutsSchema(RequestSchema):
    """How long to wait for an upstream, in seconds."""

    connect = fields.Float(validate=_seconds, metadata={"description": "For a connection"})
    first_byte = fields.Float(
        validate=_seconds,
        metadata={"description": "For an answer's first byte: a model may be loading"},
    )
    idle = fields.Float(validate=_seconds, metadata={"description": "Between two bytes"})
    list = fields.Float(validate=_seconds, metadata={"description": "For a list of models"})
    pull = fields.Float(
        validate=_seconds,
        metadata={"description": "How long `POST pull` waits; the pull itself goes on"},
    )


class SettingsSchema(RequestSchema):
    """The settings; `PUT` changes those that it names."""

    default_provider = fields.Str(metadata={"description": "The provider of a chat that names none"})
    fallback_provider = fields.Str(
        allow_none=True,
        metadata={"description": "Who answers when the first provider cannot; null for nobody"},
    )
    system_prompt = fields.Str(
        validate=validate.Length(max=100_000),
        metadata={"description": "For chats that bring none; empty for none"},
    )
    temperature = fields.Float(
        allow_none=True,
        validate=validate.Range(0, 2),
        metadata={"description": "For chats that name none; null leaves it to the provider"},
    )
    max_tokens = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(min=1),
        metadata={
            "description": "For chats that name none; null leaves it to the provider. Never sent to Ollama."
        },
    )
    timeouts = fields.Nested(TimeoutsSchema)

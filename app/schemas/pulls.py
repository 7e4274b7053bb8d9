"""Pulls: downloads of models."""

from __future__ import annotations

from marshmallow import fields

from app.schemas.base import RequestSchema, UpstreamSchema, not_blank


class PullRequestSchema(RequestSchema):
    """Which model to pull."""

    model = fields.Str(
        required=True,
        validate=not_blank("Model name"),
        metadata={"label": "Model name", "description": "Such as `llama3.2:1b`"},
    )
    insecure = fields.Bool(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "Plain HTTP to the registry; only for one on this machine"},
    )


class PullPartSchema(UpstreamSchema):
    """A line of Ollama's progress; what it does not tell is null."""

    status = fields.Str(required=True)
    digest = fields.Str(load_default=None, metadata={"description": "The layer's, if it is of one"})
    total = fields.Int(load_default=None, metadata={"description": "Bytes of the layer"})
    completed = fields.Int(load_default=None, metadata={"description": "Bytes that are here"})


class PullResultSchema(UpstreamSchema):
    """A pull that ended well."""

    success = fields.Bool()
    message = fields.Str()
    model = fields.Str()
    status_log = fields.List(
        fields.Nested(PullPartSchema),
        metadata={"description": "In order; of the lines of one layer, the last"},
    )

"""What a registry answers."""

from __future__ import annotations

from marshmallow import fields, validate

from app.schemas.base import UpstreamSchema

MAX_SIZE = 2**53
"""The most bytes of a layer; the sum of a thousand such layers still fits into 64 bits."""


class LayerSchema(UpstreamSchema):
    """A layer of a manifest."""

    media_type = fields.Str(data_key="mediaType", required=True)
    digest = fields.Str(required=True, validate=validate.Regexp(r"^sha256:[0-9a-f]{64}\Z"))
    size = fields.Int(strict=True, required=True, validate=validate.Range(0, MAX_SIZE))


class ManifestSchema(UpstreamSchema):
    """A model's manifest: ``application/vnd.docker.distribution.manifest.v2+json``."""

    config = fields.Nested(LayerSchema, required=True)
    layers = fields.List(fields.Nested(LayerSchema), required=True, validate=validate.Length(max=1000))

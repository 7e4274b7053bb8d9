"""The health of the server."""

from __future__ import annotations

from marshmallow import fields

from app.schemas.base import UpstreamSchema


class HealthSchema(UpstreamSchema):
    """The state of the server."""

    status = fields.Str(metadata={"description": "`ok`, or `degraded` when there are warnings"})
    version = fields.Str(metadata={"description": "The server's version; empty without the server's key"})
    warnings = fields.List(
        fields.Str(),
        metadata={
            "description": "Problems, such as a damaged file or background work that fails; none without the "
            "server's key"
        },
    )

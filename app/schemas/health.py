"""Whether the server is well."""

from __future__ import annotations

from marshmallow import fields

from app.schemas.base import UpstreamSchema


class HealthSchema(UpstreamSchema):
    """The server's own state."""

    status = fields.Str(metadata={"description": "`ok`, or `degraded` when there are warnings"})
    version = fields.Str(metadata={"description": "The server's version"})
    warnings = fields.List(
        fields.Str(), metadata={"description": "What a person should mend, such as a damaged file"}
    )

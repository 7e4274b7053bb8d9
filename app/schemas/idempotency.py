"""The header that lets a client send a request again without it being done twice."""

from __future__ import annotations

from marshmallow import fields, validate

from app.schemas.base import UpstreamSchema


class IdempotencySchema(UpstreamSchema):
    """A request that may be sent again."""

    idempotency_key = fields.Str(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r"[^\x00-\x1f\x7f-\x9f]{1,255}\Z", error="Give 1 to 255 characters, no controls"
        ),
        metadata={
            "description": "Any text that no other request has. The same request sent again with it, within "
            "24 hours, is not done again: it answers for what the first one did"
        },
    )

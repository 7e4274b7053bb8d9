"""The header `Idempotency-Key`: a client can repeat a request, and it is still done only once."""

from __future__ import annotations

from marshmallow import fields, validate

from app.schemas.base import UpstreamSchema


class IdempotencySchema(UpstreamSchema):
    """The header of a request that a client may repeat."""

    idempotency_key = fields.Str(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r"[^\x00-\x1f\x7f-\x9f]{1,255}\Z", error="Give 1 to 255 characters, no controls"
        ),
        metadata={
            "description": "A text that is unique to this request. For 24 hours, the same request with the "
            "same key is not done again: it returns the result of the first request"
        },
    )

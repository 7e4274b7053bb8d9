"""The bases of all schemas, and the error body's own."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema, fields


class RequestSchema(Schema):
    """A request's body: unknown fields are refused, and a missing one is named."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Let the messages for a missing value name the field."""
        label = field_obj.metadata.get("label", field_name.replace("_", " ").capitalize())
        field_obj.error_messages["required"] = f"{label} is required"
        if not field_obj.allow_none:
            field_obj.error_messages["null"] = f"{label} is required"


class UpstreamSchema(Schema):
    """An answer, an upstream's or this program's: fields that the schema does not name are left out."""

    class Meta:
        unknown = EXCLUDE


class ErrorSchema(Schema):
    """The body of every failure."""

    error = fields.Str(required=True, metadata={"description": "A sentence a person can act on"})
    error_type = fields.Str(
        required=True,
        metadata={"description": "A name for programs; see docs/errors.md for the list"},
    )
    hint = fields.Str(metadata={"description": "The command or setting that mends it"})
    details = fields.Dict(
        keys=fields.Str(), metadata={"description": "Facts for a program, such as the faulty field"}
    )
    request_id = fields.Str(
        required=True, metadata={"description": "Also in the log and the X-Request-ID header"}
    )

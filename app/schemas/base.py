"""The base classes of all schemas, and the schema of the error body."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema, fields, pre_load


class RequestSchema(Schema):
    """A request's body or parameters: unknown fields are refused, and an error names each missing field."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Set the messages for a missing value, so that they name the field."""
        label = field_obj.metadata.get("label", field_name.replace("_", " ").capitalize())
        field_obj.error_messages["required"] = f"{label} is required"
        if not field_obj.allow_none:
            field_obj.error_messages["null"] = f"{label} is required"


class UpstreamSchema(Schema):
    """An answer of an upstream or of this program; fields that the schema does not name are left out."""

    class Meta:
        unknown = EXCLUDE

    @pre_load
    def _null_is_absent(self, data: Any, **_: Any) -> Any:
        """Leave out null values, unless null is a value of the field: programs in Go write either."""
        if not isinstance(data, dict) or None not in data.values():
            return data
        nullable = {name for name, field in self.fields.items() if field.allow_none}
        return {name: value for name, value in data.items() if value is not None or name in nullable}


class ErrorSchema(Schema):
    """The body of every error."""

    error = fields.Str(required=True, metadata={"description": "What is wrong, as a sentence for people"})
    error_type = fields.Str(
        required=True,
        metadata={"description": "The kind of error, for programs; docs/errors.md lists them"},
    )
    hint = fields.Str(metadata={"description": "The command or setting that solves the problem"})
    details = fields.Dict(
        keys=fields.Str(), metadata={"description": "Facts for programs, such as the faulty field"}
    )
    request_id = fields.Str(
        required=True,
        metadata={"description": "The request's id, also in the log and in the header `X-Request-ID`"},
    )

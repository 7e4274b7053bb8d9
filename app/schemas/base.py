"""The base of the schemas of answers, what lists of models share, and the error body."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema, fields, pre_load


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


def listing(entries: list[Any] | None, told: Any) -> dict[str, Any]:
    """Return the list of models that a schema loaded: how many there are, and how many were left out.

    :param entries: what :class:`~app.schemas.fields.Entries` loaded
    :param told: what the upstream sent
    """
    models = entries or []
    left_out = len(told or ()) - len(models)
    return {"models": models, "total": len(models), **({"left_out": left_out} if left_out else {})}


def left_out_field() -> fields.Int:
    """Return the field for the number of entries that :class:`~app.schemas.fields.Entries` left out."""
    return fields.Int(
        metadata={
            "description": "Entries that are left out because they are invalid; missing if there is none"
        }
    )


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

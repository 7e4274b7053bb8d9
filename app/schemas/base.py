"""What all schemas share, and the error body's own."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate


class RequestSchema(Schema):
    """A request's body: unknown fields are refused, and a missing one is named."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Let the messages for a missing value name the field."""
        label = field_obj.metadata.get("label", field_name.replace("_", " ").capitalize())
        field_obj.error_messages["required"] = f"{label} is required"
        if not field_obj.allow_none:
            field_obj.error_messages["null"] = f"{label} is required"


class StrictBool(fields.Bool):
    """true or false, and nothing that looks like it."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class StrictFloat(fields.Float):
    """A number, not a text that holds one."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class UpstreamSchema(Schema):
    """What an upstream sends: what is not known here is left out."""

    class Meta:
        unknown = EXCLUDE


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


def not_blank(label: str) -> Any:
    """Return a validator for a text that is more than white space."""

    def check(value: str) -> None:
        if not value.strip():
            raise ValidationError(f"{label} is required")

    return check


def no_controls(value: str) -> None:
    """Refuse a name with control characters: they are typing errors, and PostgreSQL takes no NUL."""
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValidationError("Give a name without control characters.")


def check_base_url(value: str) -> None:
    """Validate the address of a provider: absolute, http or https, and nothing secret in it."""
    try:
        url = urlsplit(value)
        port_is_valid = url.port != 0
        (url.hostname or "").encode("idna")
    except ValueError as exc:
        raise ValidationError("Not a URL, for example http://localhost:11434/v1") from exc
    if url.scheme not in {"http", "https"} or not url.hostname or not port_is_valid:
        raise ValidationError("Give an http or https URL, for example http://localhost:11434/v1")
    if url.username or url.password:
        raise ValidationError("Leave user and password out of the URL; set api_key instead")
    if url.query or url.fragment or any(c.isspace() for c in value):
        raise ValidationError("Give the URL up to its path, without '?', '#' or spaces")

"""Making models: from an installed one, or from an uploaded file."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import fields, validate

from app.schemas.base import RequestSchema, UpstreamSchema
from app.schemas.fields import Digest, TextsField, WordBool, model_name
from app.schemas.options import OptionsSchema
from app.schemas.pulls import PullPartSchema

_TEXT_LIMIT = 500_000  # characters


class _Creation(TypedDict):
    model: str
    overwrite: bool
    stream: bool


class Creation(_Creation, total=False):
    """What :class:`CreateSchema` loads."""

    origin: str
    digest: str
    system: str
    template: str
    parameters: dict[str, Any]
    license: list[str]


CreationOrder = TypedDict(  # not a class statement: `from` is a keyword
    "CreationOrder",
    {
        "model": str,
        "from": str,
        "files": dict[str, str],
        "system": str,
        "template": str,
        "parameters": dict[str, Any],
        "license": list[str],
    },
    total=False,
)
"""The body of Ollama's ``POST /api/create``."""


class Created(TypedDict):
    """What :class:`CreatedSchema` dumps."""

    model: str
    created: bool
    status_log: list[dict[str, Any]]


class CreateSchema(RequestSchema):
    """What to make: from an installed model, or from the GGUF file that is the body.

    With a file, the fields are parameters of the query.
    """

    model = model_name("The name of the new model")
    origin = fields.Str(data_key="from", metadata={"description": "An installed model; not with a file"})
    digest = Digest(metadata={"description": "The SHA-256 of the file, to be checked; only with a file"})
    system = fields.Str(
        validate=validate.Length(max=_TEXT_LIMIT), metadata={"description": "Its system prompt"}
    )
    template = fields.Str(
        validate=validate.Length(1, _TEXT_LIMIT),
        metadata={"description": "Its prompt template, in Go's language"},
    )
    parameters = fields.Nested(
        OptionsSchema, metadata={"description": "The parameters that the model's chats start from"}
    )
    license = TextsField(metadata={"description": "A text, or a list of them"})
    overwrite = WordBool(
        load_default=False,
        metadata={"description": "Replace a model that has this name already"},
    )
    stream = WordBool(
        load_default=False,
        metadata={"description": "Answer as an event stream: `progress`, then `done` or `error`"},
    )


class CreatedSchema(UpstreamSchema):
    """A model that was made."""

    model = fields.Str()
    created = fields.Bool()
    status_log = fields.List(fields.Nested(PullPartSchema), metadata={"description": "Ollama's own lines"})

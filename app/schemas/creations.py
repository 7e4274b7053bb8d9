"""Creating models from an installed model, or from an uploaded file."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import fields, validate

from app.schemas.base import UpstreamSchema
from app.schemas.fields import Digest, RequestSchema, TextsField, WordBool, model_name
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
    """The model to create, from an installed model or from the GGUF file in the body.

    With a file, the fields are query parameters.
    """

    model = model_name("The name of the new model")
    origin = fields.Str(
        data_key="from", metadata={"description": "The installed model to start from; not with a file"}
    )
    digest = Digest(
        metadata={"description": "The SHA-256 of the file, which is then checked; only with a file"}
    )
    system = fields.Str(
        validate=validate.Length(max=_TEXT_LIMIT), metadata={"description": "The new model's system prompt"}
    )
    template = fields.Str(
        validate=validate.Length(1, _TEXT_LIMIT),
        metadata={"description": "The new model's prompt template, in Go's template language"},
    )
    parameters = fields.Nested(
        OptionsSchema, metadata={"description": "The default options of chats with the new model"}
    )
    license = TextsField(metadata={"description": "A text, or a list of texts"})
    overwrite = WordBool(
        load_default=False,
        metadata={"description": "Replace an installed model with this name"},
    )
    stream = WordBool(
        load_default=False,
        metadata={"description": "Answer with an event stream: `progress`, then `done` or `error`"},
    )


class CreatedSchema(UpstreamSchema):
    """A model that was created."""

    model = fields.Str()
    created = fields.Bool()
    status_log = fields.List(
        fields.Nested(PullPartSchema), metadata={"description": "The lines of Ollama's progress"}
    )

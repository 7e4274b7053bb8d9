"""The installed models, as Ollama and this API list them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict

from marshmallow import fields, post_load, validate

from app.schemas.base import UpstreamSchema, left_out_field, listing
from app.schemas.fields import Count, Digest, Entries, RequestSchema, Text, UtcDateTime


class ModelDetails(TypedDict, total=False):
    """What :class:`ModelDetailsSchema` loads; Ollama before 0.30 tells no ``context_length``."""

    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    context_length: int


class Named(TypedDict):
    """Anything with a model's name."""

    name: str


class _Installed(Named):
    size: int
    modified_at: datetime
    digest: str
    details: ModelDetails


class InstalledModel(_Installed, total=False):
    """A model as :class:`ModelSchema` loads it; ``loaded`` is only set if the request asks for it."""

    capabilities: list[str]
    loaded: bool


class _ModelList(TypedDict):
    models: list[InstalledModel]
    total: int


class ModelList(_ModelList, total=False):
    """What :class:`ModelListSchema` loads."""

    left_out: int


class ModelListing(ModelList, total=False):
    """What :class:`ModelListingSchema` dumps."""

    stale: bool
    age_seconds: int
    as_of: datetime


class ModelDetailsSchema(UpstreamSchema):
    """The family, the size and the format of a model."""

    format = Text(load_default="")
    family = Text(load_default="")
    families = fields.List(Text(), load_default=list, allow_none=True)
    parameter_size = Text(load_default="")
    quantization_level = Text(load_default="")
    context_length = Count(metadata={"description": "The trained maximum, in tokens"})

    @post_load
    def _families_is_a_list(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "families": data["families"] or []}


class ModelSchema(UpstreamSchema):
    """An installed model."""

    name = Text(required=True, metadata={"description": "The name with its tag"})
    size = Count(required=True, metadata={"description": "Bytes of all its layers"})
    modified_at = UtcDateTime(required=True)
    digest = Digest(required=True, metadata={"description": "`sha256:` and 64 hex digits"})
    details = fields.Nested(ModelDetailsSchema, load_default=lambda: ModelDetailsSchema().load({}))
    capabilities = fields.List(
        Text(), metadata={"description": "Such as `completion` or `tools`; missing before Ollama 0.30"}
    )


class ModelListSchema(UpstreamSchema):
    """The installed models, the newest first."""

    models = Entries(ModelSchema)
    total = fields.Int(metadata={"description": "How many models there are"})
    left_out = left_out_field()

    @post_load(pass_original=True)
    def _count(self, data: dict[str, Any], told: dict[str, Any], **_: Any) -> dict[str, Any]:
        return listing(data["models"], told["models"])


class ModelQuerySchema(RequestSchema):
    """Which of the installed models to list, and how."""

    loaded = fields.Bool(
        metadata={"description": "true: only models in memory; false: only the others. Sets `loaded` of each"}
    )
    capability = fields.Str(
        validate=validate.Length(1, 40),
        metadata={"description": "Only models with this capability, such as `tools`"},
    )
    sort = fields.Str(
        validate=validate.OneOf(
            [f"{sign}{key}" for key in ("name", "size", "modified_at") for sign in ("", "-")]
        ),
        metadata={"description": "The field to sort by; descending with `-` in front"},
    )
    stale = fields.Str(
        validate=validate.OneOf(["ok"]),
        metadata={
            "description": "`ok`: return the last known list when Ollama is down; ignored with `loaded`"
        },
    )


class ListedModelSchema(ModelSchema):
    """A model in a list."""

    loaded = fields.Bool(
        metadata={"description": "Whether the model is in memory; only if the request has `loaded`"}
    )


class ModelListingSchema(ModelListSchema):
    """The models that the request asks for."""

    models = Entries(ListedModelSchema)
    stale = fields.Bool(metadata={"description": "True for the last known list, while Ollama is down"})
    age_seconds = fields.Int(metadata={"description": "The age of a stale list"})
    as_of = UtcDateTime(metadata={"description": "When Ollama sent a stale list"})

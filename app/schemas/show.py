"""The details of a model, as Ollama and this API show them; copies and deletions of models."""

from __future__ import annotations

import ast
from datetime import datetime
from typing import Any, TypedDict

from marshmallow import ValidationError, fields, post_load

from app.schemas.base import UpstreamSchema
from app.schemas.fields import Digest, RequestSchema, StrictBool, Text, UtcDateTime
from app.schemas.models import ModelDetails, ModelDetailsSchema
from app.schemas.running import MemorySchema
from app.upstream.json import count, has_half, parse


class ShownModel(TypedDict):
    """What :class:`ShowSchema` loads."""

    license: str
    parameters: dict[str, Any]
    template: str
    system: str
    requires: str
    details: ModelDetails
    capabilities: list[str]
    trained_context: int | None


class ContextLength(TypedDict):
    """What :class:`ContextSchema` dumps, in tokens."""

    trained: int | None
    in_force: int | None


class _Detail(TypedDict):
    name: str
    size: int
    digest: str
    modified_at: datetime
    details: ModelDetails
    capabilities: list[str]
    context: ContextLength
    parameters: dict[str, Any]
    template: str
    system: str
    license: str
    requires: str
    aliases: list[str]
    loaded: bool


class ModelDetail(_Detail, total=False):
    """What :class:`ModelDetailSchema` dumps; the fields below are only set for a model in memory."""

    size_vram: int
    gpu_percent: float
    expires_at: datetime | None
    forever: bool


class CopiedModel(TypedDict):
    """What :class:`CopiedSchema` dumps."""

    source: str
    destination: str
    copied: bool


class FreedLayer(TypedDict):
    """What :class:`FreedLayerSchema` dumps."""

    digest: str
    size: int
    media_type: str
    freed: bool


class _Freed(TypedDict):
    freed_bytes: int
    shared_bytes: int
    estimated: bool


class FreedSpace(_Freed, total=False):
    """The disk space that a deletion frees; without ``layers`` if it is estimated."""

    layers: list[FreedLayer]


class DeletedModel(FreedSpace):
    """What :class:`DeletedSchema` dumps."""

    model: str
    deleted: bool
    dry_run: bool
    deleted_versions: list[str]
    kept_versions: list[str]


class ParametersField(fields.Field[Any]):
    """A model's parameters. Ollama sends them as a text with one line each, such as ``stop  "<|im_end|>"``.

    They are loaded as a dict. The value is a list for ``stop``, and for a parameter with several lines.
    """

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, Any]:
        if not isinstance(value, str) or has_half(value):
            raise ValidationError("Not a text.")
        found: dict[str, list[Any]] = {}
        for line in value.splitlines():
            key, _sep, text = line.strip().partition(" ")
            if key:
                found.setdefault(key, []).append(_parameter(text.strip()))
        return {
            key: values if key == "stop" or len(values) > 1 else values[0] for key, values in found.items()
        }


def _parameter(text: str) -> Any:
    """Parse a number, a boolean or a quoted text as Go's ``%#v`` writes it; return any other unchanged."""
    if text.startswith('"'):  # Go's escapes are Python's, too; not all of them are JSON's
        try:
            quoted = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return text
        return quoted if isinstance(quoted, str) and not has_half(quoted) else text
    try:
        value = parse(text)
    except ValueError:
        return text
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ShowSchema(UpstreamSchema):
    """The fields of Ollama's ``POST /api/show`` that this API uses."""

    license = Text(load_default="")
    parameters = ParametersField(load_default=dict)
    template = Text(load_default="")
    system = Text(load_default="")
    requires = Text(load_default="")
    details = fields.Nested(ModelDetailsSchema, load_default=lambda: ModelDetailsSchema().load({}))
    model_info = fields.Dict(keys=fields.Str(), load_default=dict, allow_none=True)
    capabilities = fields.List(Text(), load_default=list, allow_none=True)

    @post_load
    def _explain(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Find the trained context length; its key begins with the model's architecture."""
        info = data.pop("model_info") or {}
        length = info.get(f"{info.get('general.architecture')}.context_length")
        return {
            **data,
            "capabilities": data["capabilities"] or [],
            "trained_context": count(length),
        }


class ContextSchema(UpstreamSchema):
    """The size of a model's window in tokens."""

    trained = fields.Int(allow_none=True, metadata={"description": "The largest window it was trained for"})
    in_force = fields.Int(
        allow_none=True,
        metadata={
            "description": "The window of the loaded model, else its `num_ctx`; null if Ollama will choose"
        },
    )


class ModelDetailSchema(MemorySchema):
    """The details of a model."""

    name = fields.Str()
    size = fields.Int(metadata={"description": "Bytes of all its layers"})
    digest = Digest()
    modified_at = UtcDateTime()
    details = fields.Nested(ModelDetailsSchema)
    capabilities = fields.List(fields.Str())
    context = fields.Nested(ContextSchema)
    parameters = fields.Dict(
        keys=fields.Str(), metadata={"description": "The parameters of its Modelfile; `stop` is a list"}
    )
    template = fields.Str()
    system = fields.Str(metadata={"description": "The model's own system prompt"})
    license = fields.Str()
    requires = fields.Str(
        metadata={"description": "The oldest version of Ollama that can run the model; empty if not stated"}
    )
    aliases = fields.List(fields.Str(), metadata={"description": "Other names of the same model"})
    loaded = fields.Bool(metadata={"description": "Whether the model is in memory"})


class CopySchema(RequestSchema):
    """Which model to copy, and the copy's name."""

    source = fields.Str(required=True)
    destination = fields.Str(required=True)
    overwrite = StrictBool(
        load_default=False,
        metadata={"description": "Replace an installed model with the name in `destination`"},
    )


class CopiedSchema(UpstreamSchema):
    """A model that was copied."""

    source = fields.Str()
    destination = fields.Str()
    copied = fields.Bool()


class DeleteQuerySchema(RequestSchema):
    """How to delete a model."""

    dry_run = fields.Bool(
        load_default=False, metadata={"description": "Delete nothing; answer what would be freed"}
    )
    versions = fields.Bool(
        load_default=False,
        metadata={"description": "Also delete the former versions that updates have kept"},
    )


class FreedLayerSchema(UpstreamSchema):
    """A layer of a deleted model."""

    digest = fields.Str()
    size = fields.Int(metadata={"description": "Bytes"})
    media_type = fields.Str()
    freed = fields.Bool(
        metadata={"description": "Whether the layer is deleted; false: another model uses it"}
    )


class DeletedSchema(UpstreamSchema):
    """A model that was deleted."""

    model = fields.Str()
    deleted = fields.Bool()
    dry_run = fields.Bool()
    freed_bytes = fields.Int(metadata={"description": "Bytes that the deletion frees on the disk"})
    shared_bytes = fields.Int(
        metadata={"description": "Bytes that stay on the disk, because other models use them"}
    )
    estimated = fields.Bool(
        metadata={"description": "Whether the bytes are estimated from the list: the folder cannot be read"}
    )
    layers = fields.List(
        fields.Nested(FreedLayerSchema), metadata={"description": "Missing if the bytes are estimated"}
    )
    deleted_versions = fields.List(
        fields.Str(), metadata={"description": "The former versions that were deleted too, for `versions`"}
    )
    kept_versions = fields.List(
        fields.Str(), metadata={"description": "The former versions of the model that stay installed"}
    )

"""The plan of a pull: what it would download, and the disk and memory that the model needs."""

from __future__ import annotations

from typing import TypedDict

from marshmallow import fields

from app.schemas.base import UpstreamSchema


class PlanLayer(TypedDict):
    """What :class:`PlanLayerSchema` dumps."""

    digest: str
    size: int
    kind: str
    present: bool


class PlanDisk(TypedDict):
    """What :class:`PlanDiskSchema` dumps."""

    free_bytes: int
    needed_bytes: int
    fits: bool


class PlanMemory(TypedDict):
    """What :class:`PlanMemorySchema` dumps."""

    needed_bytes: int
    num_ctx: int
    available_bytes: int | None
    fits: bool | None
    estimated: bool


class Plan(TypedDict):
    """What :class:`PlanSchema` dumps."""

    model: str
    digest: str
    size: int
    download_bytes: int
    layers: list[PlanLayer]
    installed: bool
    current: bool
    disk: PlanDisk | None
    memory: PlanMemory
    license: str | None
    requires: str | None
    version_ok: bool | None


class PlanLayerSchema(UpstreamSchema):
    """A layer of the model."""

    digest = fields.Str()
    size = fields.Int(metadata={"description": "Bytes"})
    kind = fields.Str(
        metadata={
            "description": "`model` (the weights), `template`, `params`, `system`, `license`, `config` ..."
        }
    )
    present = fields.Bool(metadata={"description": "Whether Ollama has the layer already"})


class PlanDiskSchema(UpstreamSchema):
    """The disk with Ollama's models."""

    free_bytes = fields.Int()
    needed_bytes = fields.Int(
        metadata={"description": "`download_bytes` without the bytes of an unfinished download"}
    )
    fits = fields.Bool(metadata={"description": "Whether the disk has the needed bytes free"})


class PlanMemorySchema(UpstreamSchema):
    """The memory that the model takes when it is loaded."""

    needed_bytes = fields.Int(
        metadata={"description": "Bytes of the weights and of the cache for `num_ctx` tokens"}
    )
    num_ctx = fields.Int(metadata={"description": "The window in tokens that this estimate is for"})
    available_bytes = fields.Int(
        allow_none=True, metadata={"description": "Available memory of this machine; null if unknown"}
    )
    fits = fields.Bool(
        allow_none=True, metadata={"description": "Whether the model fits into memory; null if unknown"}
    )
    estimated = fields.Bool(
        metadata={"description": "Whether the number is a guess from the size of the weights alone"}
    )


class PlanSchema(UpstreamSchema):
    """What pulling a model would download and need."""

    model = fields.Str()
    digest = fields.Str(metadata={"description": "The digest that the installed model will have"})
    size = fields.Int(metadata={"description": "Bytes of all layers"})
    download_bytes = fields.Int(metadata={"description": "Bytes of the layers that Ollama does not have"})
    layers = fields.List(fields.Nested(PlanLayerSchema))
    installed = fields.Bool(metadata={"description": "Whether any version of the model is installed"})
    current = fields.Bool(metadata={"description": "Whether the registry's version is installed"})
    disk = fields.Nested(
        PlanDiskSchema, allow_none=True, metadata={"description": "Null if the disk is on another machine"}
    )
    memory = fields.Nested(PlanMemorySchema)
    license = fields.Str(allow_none=True, metadata={"description": "The first line of the model's licence"})
    requires = fields.Str(
        allow_none=True, metadata={"description": "The oldest version of Ollama that can run the model"}
    )
    version_ok = fields.Bool(
        allow_none=True, metadata={"description": "Whether this Ollama can run it; null if unknown"}
    )

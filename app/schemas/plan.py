"""What a pull would fetch and need."""

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
    present = fields.Bool(metadata={"description": "Whether it is here already"})


class PlanDiskSchema(UpstreamSchema):
    """The disk with Ollama's models."""

    free_bytes = fields.Int()
    needed_bytes = fields.Int(
        metadata={"description": "`download_bytes` less what an unfinished download has here"}
    )
    fits = fields.Bool()


class PlanMemorySchema(UpstreamSchema):
    """The memory that the model takes when it is loaded."""

    needed_bytes = fields.Int(metadata={"description": "Weights, and the cache of `num_ctx` tokens"})
    num_ctx = fields.Int(metadata={"description": "The context that it is estimated for, in tokens"})
    available_bytes = fields.Int(
        allow_none=True, metadata={"description": "Of this machine; null where that does not tell"}
    )
    fits = fields.Bool(allow_none=True)
    estimated = fields.Bool(
        metadata={"description": "Whether it is guessed from the size of the weights alone"}
    )


class PlanSchema(UpstreamSchema):
    """What pulling a model would fetch and need."""

    model = fields.Str()
    digest = fields.Str(metadata={"description": "The one that the model will be listed with"})
    size = fields.Int(metadata={"description": "Bytes of all layers"})
    download_bytes = fields.Int(metadata={"description": "Bytes of the layers that are not here"})
    layers = fields.List(fields.Nested(PlanLayerSchema))
    installed = fields.Bool()
    current = fields.Bool(metadata={"description": "Whether what is installed is what the registry has"})
    disk = fields.Nested(
        PlanDiskSchema, allow_none=True, metadata={"description": "Null where it is another machine's"}
    )
    memory = fields.Nested(PlanMemorySchema)
    license = fields.Str(allow_none=True, metadata={"description": "The first line of its licence"})
    requires = fields.Str(allow_none=True, metadata={"description": "The oldest Ollama that can run it"})
    version_ok = fields.Bool(allow_none=True, metadata={"description": "Whether this Ollama is new enough"})

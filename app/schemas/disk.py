"""The disk space of the models."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from marshmallow import fields

from app.schemas.base import UpstreamSchema
from app.schemas.fields import UtcDateTime


class _Sizes(TypedDict):
    model: str
    size: int
    shared_bytes: int
    reclaimable_bytes: int


class ModelDisk(_Sizes, total=False):
    """What :class:`ModelDiskSchema` dumps; the sizes come first, and then the fields below are added."""

    last_used_at: datetime | None
    protected: bool
    safe_to_remove: bool
    reason: str


class _Disk(TypedDict):
    path: str | None
    models: list[ModelDisk]
    total_bytes: int
    free_bytes: int | None
    duplicates: list[list[str]]
    partial_bytes: int | None
    estimated: bool


class Disk(_Disk, total=False):
    """What :class:`DiskSchema` dumps."""

    safe_to_remove_bytes: int


class ModelDiskSchema(UpstreamSchema):
    """The disk space of one model."""

    model = fields.Str()
    size = fields.Int(metadata={"description": "Bytes of all its layers"})
    shared_bytes = fields.Int(metadata={"description": "Bytes of the layers that other models use too"})
    reclaimable_bytes = fields.Int(metadata={"description": "Bytes that deleting this model alone frees"})
    last_used_at = UtcDateTime(
        allow_none=True,
        metadata={"description": "The last use through this server; null if none is known"},
    )
    protected = fields.Bool(
        metadata={"description": "Whether the settings protect it from being deleted or replaced"}
    )
    safe_to_remove = fields.Bool(
        metadata={"description": "Whether the model seems unused; `reason` says why, docs/updates.md how"}
    )
    reason = fields.Str(metadata={"description": "Why the model is safe to remove, or why not"})


class DiskSchema(UpstreamSchema):
    """The disk space of all models."""

    path = fields.Str(
        allow_none=True,
        metadata={"description": "Ollama's models folder; null if it is on another machine"},
    )
    models = fields.List(fields.Nested(ModelDiskSchema), metadata={"description": "The largest first"})
    total_bytes = fields.Int(metadata={"description": "Bytes of all models; a shared layer counts once"})
    free_bytes = fields.Int(
        allow_none=True, metadata={"description": "Free bytes of the disk; null if it is on another machine"}
    )
    duplicates = fields.List(
        fields.List(fields.Str()), metadata={"description": "Groups of names of the same model"}
    )
    partial_bytes = fields.Int(
        allow_none=True,
        metadata={"description": "Bytes of unfinished downloads; null if not on this machine"},
    )
    safe_to_remove_bytes = fields.Int(
        metadata={"description": "Bytes that deleting all models that are safe to remove frees"}
    )
    estimated = fields.Bool(
        metadata={"description": "Whether the sizes come from Ollama's list, not from its models folder"}
    )

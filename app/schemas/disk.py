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
    """What :class:`ModelDiskSchema` dumps; the fields below are added to the sizes."""

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
    shared_bytes = fields.Int(metadata={"description": "Of them, those that other models use too"})
    reclaimable_bytes = fields.Int(metadata={"description": "What deleting it alone would free"})
    last_used_at = UtcDateTime(
        allow_none=True, metadata={"description": "Through this server; null where it never was"}
    )
    protected = fields.Bool(
        metadata={"description": "Whether the settings forbid to delete or to replace it"}
    )
    safe_to_remove = fields.Bool(
        metadata={"description": "Whether nobody seems to need it, as far as this server sees"}
    )
    reason = fields.Str(metadata={"description": "Why it is safe to remove, or is not"})


class DiskSchema(UpstreamSchema):
    """The disk space of all models."""

    path = fields.Str(
        allow_none=True,
        metadata={"description": "Ollama's models folder; null where it is another machine's"},
    )
    models = fields.List(fields.Nested(ModelDiskSchema), metadata={"description": "The largest first"})
    total_bytes = fields.Int(metadata={"description": "Of all models; what they share is counted once"})
    free_bytes = fields.Int(allow_none=True)
    duplicates = fields.List(fields.List(fields.Str()), metadata={"description": "Names of the same model"})
    partial_bytes = fields.Int(allow_none=True, metadata={"description": "What unfinished downloads take"})
    safe_to_remove_bytes = fields.Int(
        metadata={"description": "What deleting all models that are safe to remove would free"}
    )
    estimated = fields.Bool(
        metadata={"description": "Whether the sizes are as Ollama lists them, without its folder being read"}
    )

"""Models in memory."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, TypedDict

from marshmallow import fields, post_load

from app.schemas.base import UpstreamSchema, left_out_field, listing
from app.schemas.fields import (
    Count,
    Digest,
    Entries,
    KeepAlive,
    RequestSchema,
    Text,
    UtcDateTime,
    model_name,
)
from app.schemas.models import ModelDetails, ModelDetailsSchema, Named

_CENTURY = timedelta(days=36525)  # Ollama writes "never" as a time three centuries away


class Memory(TypedDict):
    """What :class:`MemorySchema` dumps."""

    size_vram: int
    gpu_percent: float
    expires_at: datetime | None
    forever: bool


class RunningModel(Named, Memory):
    """A model as :class:`RunningSchema` loads it."""

    size: int
    context_length: int | None
    digest: str
    details: ModelDetails


class RunningList(TypedDict):
    """What :class:`RunningListSchema` loads."""

    models: list[RunningModel]
    total: int


class UnloadedModel(TypedDict):
    """What :class:`UnloadedSchema` dumps."""

    model: str
    loaded: bool


class LoadedModel(UnloadedModel, total=False):
    """What :class:`LoadedSchema` dumps; these fields are only set for a model in memory."""

    size: int
    context_length: int | None
    size_vram: int
    gpu_percent: float
    expires_at: datetime | None
    forever: bool


class MemorySchema(UpstreamSchema):
    """The memory that a model takes, and when the model leaves it."""

    size_vram = Count(load_default=0, metadata={"description": "Bytes of GPU memory"})
    gpu_percent = fields.Float(metadata={"description": "The part of the model in GPU memory, in percent"})
    expires_at = UtcDateTime(
        load_default=None,
        allow_none=True,
        metadata={"description": "When Ollama unloads the model, if no request uses it; null if never"},
    )
    forever = fields.Bool(metadata={"description": "Whether the model stays until a request unloads it"})


class RunningSchema(MemorySchema):
    """A model in memory."""

    name = Text(required=True)
    size = Count(required=True, metadata={"description": "Bytes of memory, on GPU and CPU together"})
    context_length = Count(
        load_default=None, allow_none=True, metadata={"description": "The size of its window in tokens"}
    )
    digest = Digest(required=True)
    details = fields.Nested(ModelDetailsSchema, load_default=lambda: ModelDetailsSchema().load({}))

    @post_load
    def _explain(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        expires: datetime | None = data["expires_at"]
        forever = expires is not None and expires - datetime.now(timezone.utc) > _CENTURY
        if forever or (expires is not None and expires.year == 1):  # Go's zero time: Ollama does not know yet
            expires = None
        share = data["size_vram"] / data["size"] if data["size"] else 0.0
        return {**data, "expires_at": expires, "forever": forever, "gpu_percent": round(100 * share, 1)}


class RunningListSchema(UpstreamSchema):
    """The models in memory."""

    models = Entries(RunningSchema)
    total = fields.Int(metadata={"description": "How many models are loaded"})
    left_out = left_out_field()

    @post_load(pass_original=True)
    def _count(self, data: dict[str, Any], told: dict[str, Any], **_: Any) -> dict[str, Any]:
        return listing(data["models"], told["models"])


class UnloadSchema(RequestSchema):
    """Which model to unload."""

    model = model_name()


class LoadSchema(UnloadSchema):
    """Which model to load, and for how long."""

    keep_alive = KeepAlive(
        metadata={
            "description": "Seconds, or a duration such as `10m`; negative for ever; default: Ollama's own"
        }
    )


class UnloadedSchema(UpstreamSchema):
    """Whether a model is in memory."""

    model = fields.Str()
    loaded = fields.Bool()


class LoadedSchema(MemorySchema):
    """Whether a model is in memory, and the memory that it takes."""

    model = fields.Str()
    loaded = fields.Bool()
    size = fields.Int(metadata={"description": "Bytes of memory, on GPU and CPU together"})
    context_length = fields.Int(allow_none=True)

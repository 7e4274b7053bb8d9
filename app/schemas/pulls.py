"""Pulls: downloads of models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict

from marshmallow import ValidationError, fields, validate, validates_schema

from app.schemas.base import RequestSchema, UpstreamSchema
from app.schemas.fields import StrictBool, UtcDateTime, not_blank


class _PullRequest(TypedDict):
    model: str
    insecure: bool
    background: bool
    now: bool
    stream: bool
    dry_run: bool
    force: bool


class PullRequest(_PullRequest, total=False):
    """A :class:`PullRequestSchema`, loaded."""

    num_ctx: int


class PullPart(TypedDict):
    """A :class:`PullPartSchema`, loaded."""

    status: str
    digest: str | None
    total: int | None
    completed: int | None


class PullResult(TypedDict):
    """What :class:`PullResultSchema` dumps."""

    success: bool
    message: str
    model: str
    status_log: list[PullPart]


class PullProgress(TypedDict):
    """Where a pull stands: the data of its events."""

    id: str
    model: str
    status: str
    completed: int
    total: int | None
    percent: float | None
    bytes_per_second: int
    eta_seconds: int | None
    step: str
    attempts: int


class PullSummary(PullProgress):
    """What :class:`PullSchema` dumps of a pull in a list."""

    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class PullValues(PullSummary):
    """What :class:`PullSchema` dumps of one pull."""

    status_log: list[PullPart]


class PullList(TypedDict):
    """What :class:`PullListSchema` dumps."""

    pulls: list[PullSummary]
    total: int


class PullRequestSchema(RequestSchema):
    """Which model to pull."""

    model = fields.Str(
        required=True,
        validate=not_blank("Model name"),
        metadata={"label": "Model name", "description": "Such as `llama3.2:1b`"},
    )
    insecure = StrictBool(
        load_default=False,
        metadata={"description": "Plain HTTP to the registry; only for one on this machine"},
    )

    background = StrictBool(
        load_default=False,
        metadata={"description": "Answer 202 with the pull at once"},
    )
    now = StrictBool(
        load_default=False,
        metadata={"description": "Also out of the window that the settings have for pulls"},
    )
    stream = StrictBool(
        load_default=False,
        metadata={
            "description": "Answer as an event stream: `progress`, then `done`, `error` or `cancelled`"
        },
    )
    dry_run = StrictBool(
        load_default=False,
        metadata={"description": "Only answer what would be fetched and needed"},
    )
    force = StrictBool(
        load_default=False,
        metadata={"description": "Pull also what does not fit on the disk"},
    )
    num_ctx = fields.Int(
        strict=True,
        validate=validate.Range(min=1, max=100_000_000),
        metadata={"description": "With `dry_run`: the context, in tokens, to estimate the memory for"},
    )

    @validates_schema
    def _one_way_to_answer(self, data: dict[str, Any], **_: Any) -> None:
        ways = [way for way in ("dry_run", "background", "stream") if data.get(way)]
        if len(ways) > 1:
            raise ValidationError(f"Leave out either {ways[1]} or {ways[0]}.", ways[1])
        if "num_ctx" in data and not data.get("dry_run"):
            raise ValidationError("Only for a dry_run.", "num_ctx")


class PullPartSchema(UpstreamSchema):
    """A line of Ollama's progress; what it does not tell is null."""

    status = fields.Str(required=True)
    digest = fields.Str(load_default=None, metadata={"description": "The layer's, if it is of one"})
    total = fields.Int(load_default=None, metadata={"description": "Bytes of the layer"})
    completed = fields.Int(load_default=None, metadata={"description": "Bytes that are here"})


class PullResultSchema(UpstreamSchema):
    """A pull that ended well."""

    success = fields.Bool()
    message = fields.Str()
    model = fields.Str()
    status_log = fields.List(
        fields.Nested(PullPartSchema),
        metadata={"description": "In order; of the lines of one layer, the last"},
    )


class PullSchema(UpstreamSchema):
    """A pull as it stands."""

    id = fields.Str()
    model = fields.Str()
    status = fields.Str(
        metadata={"description": "`queued`, `running`, `paused`, `done`, `failed` or `cancelled`"}
    )
    completed = fields.Int(metadata={"description": "Bytes that are here, over all layers; never falls"})
    total = fields.Int(allow_none=True, metadata={"description": "Bytes of all layers, once known"})
    percent = fields.Float(allow_none=True, metadata={"description": "Never falls"})
    bytes_per_second = fields.Int()
    eta_seconds = fields.Int(allow_none=True)
    step = fields.Str(metadata={"description": "Ollama's own last status line"})
    attempts = fields.Int(metadata={"description": "How often Ollama was asked"})
    error = fields.Dict(keys=fields.Str(), allow_none=True, metadata={"description": "Why it failed"})
    created_at = UtcDateTime()
    updated_at = UtcDateTime()
    status_log = fields.List(fields.Nested(PullPartSchema))


class PullListSchema(UpstreamSchema):
    """The pulls."""

    pulls = fields.List(fields.Nested(PullSchema))
    total = fields.Int(metadata={"description": "How many pulls there are"})


class LastEventSchema(UpstreamSchema):
    """Where a watcher was."""

    last_event_id = fields.Int(
        data_key="Last-Event-ID",
        load_default=0,
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "The number of the last event that was seen"},
    )

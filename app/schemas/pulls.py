"""Pulls: downloads of models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict

from marshmallow import ValidationError, fields, validate, validates_schema

from app.schemas.base import UpstreamSchema
from app.schemas.fields import RequestSchema, StrictBool, Text, UtcDateTime, not_blank

# A number that is too large for a file is no reason to lose a download: Progress limits it.
_not_negative = validate.Range(min=0)


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
    """The progress of a pull: the data of its events."""

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
    """Which model to pull, and how."""

    model = fields.Str(
        required=True,
        validate=not_blank("Model name"),
        metadata={"label": "Model name", "description": "The model's name, such as `llama3.2:1b`"},
    )
    insecure = StrictBool(
        load_default=False,
        metadata={"description": "Use plain HTTP; only for a registry on this machine"},
    )

    background = StrictBool(
        load_default=False,
        metadata={"description": "Answer at once, with 202 and the pull"},
    )
    now = StrictBool(
        load_default=False,
        metadata={"description": "Pull at any time of day, also outside of `pulls.window` of the settings"},
    )
    stream = StrictBool(
        load_default=False,
        metadata={
            "description": "Answer with an event stream: `progress`, then `done`, `error` or `cancelled`"
        },
    )
    dry_run = StrictBool(
        load_default=False,
        metadata={"description": "Pull nothing; answer with the plan of the pull"},
    )
    force = StrictBool(
        load_default=False,
        metadata={"description": "Pull the model even if it does not fit on the disk"},
    )
    num_ctx = fields.Int(
        strict=True,
        validate=validate.Range(min=1, max=100_000_000),
        metadata={"description": "The window in tokens to estimate the memory for; only with `dry_run`"},
    )

    @validates_schema
    def _one_way_to_answer(self, data: dict[str, Any], **_: Any) -> None:
        ways = [way for way in ("dry_run", "background", "stream") if data.get(way)]
        if len(ways) > 1:
            raise ValidationError(f"Leave out either {ways[0]} or {ways[1]}.", ways[1])
        if "num_ctx" in data and not data.get("dry_run"):
            raise ValidationError("Only for a dry_run.", "num_ctx")


class PullPartSchema(UpstreamSchema):
    """A line of Ollama's progress; a field that Ollama leaves out is null."""

    status = Text(required=True, validate=validate.Length(max=1000))
    digest = Text(
        load_default=None,
        validate=validate.Length(max=200),
        metadata={"description": "The digest of the layer that the line is about"},
    )
    total = fields.Int(
        load_default=None, validate=_not_negative, metadata={"description": "Bytes of the layer"}
    )
    completed = fields.Int(
        load_default=None, validate=_not_negative, metadata={"description": "Downloaded bytes of the layer"}
    )


class PullResultSchema(UpstreamSchema):
    """A pull that succeeded."""

    success = fields.Bool()
    message = fields.Str()
    model = fields.Str()
    status_log = fields.List(
        fields.Nested(PullPartSchema),
        metadata={"description": "The lines of Ollama's progress, in order; only the last one of each layer"},
    )


class PullSchema(UpstreamSchema):
    """A pull and its progress."""

    id = fields.Str()
    model = fields.Str()
    status = fields.Str(
        metadata={"description": "`queued`, `running`, `paused`, `done`, `failed` or `cancelled`"}
    )
    completed = fields.Int(metadata={"description": "Downloaded bytes of all layers; never falls"})
    total = fields.Int(
        allow_none=True, metadata={"description": "Bytes of all layers; null until they are known"}
    )
    percent = fields.Float(allow_none=True, metadata={"description": "The downloaded share; never falls"})
    bytes_per_second = fields.Int()
    eta_seconds = fields.Int(
        allow_none=True, metadata={"description": "Estimated seconds until the end; null if unknown"}
    )
    step = fields.Str(metadata={"description": "Ollama's last status line"})
    attempts = fields.Int(metadata={"description": "How often the download was started or continued"})
    error = fields.Dict(
        keys=fields.Str(), allow_none=True, metadata={"description": "The error of a failed pull"}
    )
    created_at = UtcDateTime()
    updated_at = UtcDateTime()
    status_log = fields.List(fields.Nested(PullPartSchema))


class PullListSchema(UpstreamSchema):
    """The pulls."""

    pulls = fields.List(fields.Nested(PullSchema))
    total = fields.Int(metadata={"description": "How many pulls there are"})


class LastEventSchema(UpstreamSchema):
    """The header with which a client continues an event stream."""

    last_event_id = fields.Int(
        data_key="Last-Event-ID",
        load_default=0,
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "The id of the last event that the client has received"},
    )

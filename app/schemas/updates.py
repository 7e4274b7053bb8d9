"""Updates of models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict

from marshmallow import ValidationError, fields, validate, validates_schema

from app.schemas.base import UpstreamSchema
from app.schemas.fields import Items, RequestSchema, StrictBool, UtcDateTime, model_name, not_blank
from app.schemas.pulls import PullSchema, PullSummary


class _Update(TypedDict):
    model: str
    status: str
    digest: str
    available_digest: str | None
    download_bytes: int
    needed_bytes: int
    changed: list[str]
    is_outdated: bool


class ModelUpdate(_Update, total=False):
    """What :class:`ModelUpdateSchema` and, once the update is started, :class:`StartedUpdateSchema` dump.

    ``is_outdated`` may be true for a pinned model too. ``needed_bytes`` must be free on the disk.
    """

    reason: str
    previous: str | None
    kept_as: str
    pull: PullSummary


class UpdateList(TypedDict):
    """What :class:`UpdateListSchema` dumps."""

    models: list[ModelUpdate]
    checked_at: datetime
    total: int
    outdated: int


class SkippedUpdate(TypedDict):
    """What :class:`SkippedUpdateSchema` dumps."""

    model: str
    reason: str


class UpdateResult(TypedDict):
    """What :class:`UpdateResultSchema` dumps."""

    started: list[ModelUpdate]
    skipped: list[SkippedUpdate]
    download_bytes: int
    dry_run: bool


class Rollback(TypedDict):
    """What :class:`RollbackSchema` dumps."""

    model: str
    digest: str
    replaced_digest: str | None
    previous: str | None


class UpdateQuerySchema(RequestSchema):
    """Whether to ask the registries again."""

    refresh = fields.Bool(
        load_default=False,
        metadata={"description": "Ask the registries now; default: use their answers of the last hour"},
    )


class ModelUpdateSchema(UpstreamSchema):
    """An installed model, compared with its registry's version."""

    model = fields.Str()
    status = fields.Str(
        metadata={"description": "`current`, `outdated`, `local`, `pinned`, `cloud` or `unknown`"}
    )
    digest = fields.Str(metadata={"description": "The digest of the installed version"})
    available_digest = fields.Str(
        allow_none=True, metadata={"description": "The digest of the registry's version; null if unknown"}
    )
    download_bytes = fields.Int(metadata={"description": "Bytes of the layers that Ollama does not have"})
    changed = fields.List(
        fields.Str(),
        metadata={
            "description": "The kinds of changed layers: `model` (the weights), `template`, `params` ..."
        },
    )
    reason = fields.Str(metadata={"description": "Why the status is `local`, `cloud` or `unknown`"})
    previous = fields.Str(
        allow_none=True, metadata={"description": "The kept version that a rollback would install"}
    )


class UpdateListSchema(UpstreamSchema):
    """The installed models, compared with their registries' versions."""

    models = fields.List(fields.Nested(ModelUpdateSchema))
    checked_at = UtcDateTime(metadata={"description": "The time of the oldest answer of a registry here"})
    total = fields.Int(metadata={"description": "How many models there are"})
    outdated = fields.Int(metadata={"description": "The number of models with the status `outdated`"})


class UpdateRequestSchema(RequestSchema):
    """Which models to update."""

    models = Items(
        fields.Str(validate=not_blank("Model name")),
        validate=validate.Length(min=1, max=1000),
        metadata={"description": "The names of the models to update"},
    )
    all = StrictBool(metadata={"description": "Update all models that are outdated and not pinned"})
    dry_run = StrictBool(
        load_default=False,
        metadata={"description": "Update nothing; answer what would be updated"},
    )
    include_loaded = StrictBool(
        load_default=False,
        metadata={"description": "Also update models that are in memory"},
    )

    @validates_schema
    def _some_or_all(self, data: dict[str, Any], **_: Any) -> None:
        if ("models" in data) == bool(data.get("all")):
            raise ValidationError('Give either models or "all": true.', "models")


class StartedUpdateSchema(ModelUpdateSchema):
    """A model that is being updated."""

    class Meta(UpstreamSchema.Meta):
        exclude = ("reason", "previous")

    kept_as = fields.Str(metadata={"description": "The name under which the installed version is kept"})
    pull = fields.Nested(PullSchema)


class SkippedUpdateSchema(UpstreamSchema):
    """A model that is not updated."""

    model = fields.Str()
    reason = fields.Str(
        metadata={"description": "`current`, `local`, `pinned`, `cloud`, `unknown`, `loaded` or `disk_full`"}
    )


class UpdateResultSchema(UpstreamSchema):
    """The models that are being updated; with `dry_run`, those that would be."""

    started = fields.List(fields.Nested(StartedUpdateSchema))
    skipped = fields.List(fields.Nested(SkippedUpdateSchema))
    download_bytes = fields.Int()
    dry_run = fields.Bool()


class RollbackRequestSchema(RequestSchema):
    """Which model to roll back."""

    model = model_name()


class RollbackSchema(UpstreamSchema):
    """A model that was rolled back."""

    model = fields.Str()
    digest = fields.Str(metadata={"description": "The digest of the version that is installed again"})
    replaced_digest = fields.Str(
        allow_none=True, metadata={"description": "The digest of the version that was replaced"}
    )
    previous = fields.Str(
        allow_none=True,
        metadata={"description": "The name of the replaced version; another rollback installs it again"},
    )

"""The settings that a person changes while the program runs."""

from __future__ import annotations

from typing import TypedDict

from marshmallow import ValidationError, fields, validate

from app.model_name import ModelName
from app.schemas.base import RequestSchema
from app.schemas.fields import KeepAlive, StrictBool, StrictFloat
from app.schemas.options import ThinkField

_seconds = validate.Range(min=0, min_inclusive=False, max=86400)
_clock = validate.Regexp(r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", error="Give a time of day, for example 03:00")


def _check_name(value: str) -> None:
    try:
        ModelName.parse(value)
    except ValueError as exc:
        raise ValidationError(str(exc)) from exc


class TimeoutValues(TypedDict):
    """What :class:`TimeoutsSchema` dumps, in seconds."""

    connect: float
    first_byte: float
    idle: float
    list: float
    pull: float


Window = TypedDict("Window", {"from": str, "to": str})
"""What ``WindowSchema`` loads: a part of the day, in local time."""


class UpdateSettings(TypedDict):
    """What :class:`UpdateSettingsSchema` dumps."""

    enabled: bool
    time: str
    window: Window | None
    skip_loaded: bool


class PullSettings(TypedDict):
    """What :class:`PullSettingsSchema` dumps."""

    window: Window | None
    keep_days: int
    max_bytes_per_second: int | None


class UsageSettings(TypedDict):
    """What :class:`UsageSettingsSchema` dumps."""

    keep_days: int


class ModelDefaults(TypedDict, total=False):
    """What :class:`ModelDefaultsSchema` loads."""

    num_ctx: int | None
    keep_alive: float | str | None
    think: bool | str | None


class SettingsValues(TypedDict):
    """The settings in force, as :class:`SettingsSchema` dumps them."""

    default_provider: str
    fallback_provider: str | None
    system_prompt: str
    temperature: float | None
    max_tokens: int | None
    timeouts: TimeoutValues
    pinned_models: list[str]
    protected_models: list[str]
    keep_versions: int
    model_defaults: dict[str, ModelDefaults]
    updates: UpdateSettings
    pulls: PullSettings
    usage: UsageSettings


class TimeoutsSchema(RequestSchema):
    """How long to wait for an upstream, in seconds."""

    connect = StrictFloat(validate=_seconds, metadata={"description": "For a connection"})
    first_byte = StrictFloat(
        validate=_seconds,
        metadata={"description": "For an answer's first byte: a model may be loading"},
    )
    idle = StrictFloat(validate=_seconds, metadata={"description": "Between two bytes"})
    list = StrictFloat(validate=_seconds, metadata={"description": "For a list of models"})
    pull = StrictFloat(
        validate=_seconds,
        metadata={"description": "How long `POST pull` waits; the pull itself goes on"},
    )


WindowSchema = RequestSchema.from_dict(  # not a class statement: `from` is a keyword
    {
        "from": fields.Str(required=True, validate=_clock, metadata={"label": "from"}),
        "to": fields.Str(required=True, validate=_clock, metadata={"label": "to"}),
    },
    name="WindowSchema",
)


class UpdateSettingsSchema(RequestSchema):
    """When models are updated automatically."""

    enabled = StrictBool(metadata={"description": "Whether they are; off by default"})
    time = fields.Str(validate=_clock, metadata={"description": "When, once a day, in local time"})
    window = fields.Nested(
        WindowSchema,
        allow_none=True,
        metadata={"description": "The part of the day, in local time, for updates; null for all of it"},
    )
    skip_loaded = StrictBool(metadata={"description": "Leave loaded models alone"})


class PullSettingsSchema(RequestSchema):
    """When models are pulled, how fast, and how long the pulls are kept."""

    window = fields.Nested(
        WindowSchema,
        allow_none=True,
        metadata={
            "description": "The part of the day, in local time, in which pulls run; null for all of it. "
            "`now` in a pull's request goes beyond it."
        },
    )
    keep_days = fields.Int(
        strict=True,
        validate=validate.Range(1, 3650),
        metadata={"description": "How many days pulls that are over are kept"},
    )
    max_bytes_per_second = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(10_000, 2**53),
        metadata={
            "description": "About how fast all pulls together may be, on the average of a minute; null for "
            "no limit"
        },
    )


class ModelDefaultsSchema(RequestSchema):
    """What a chat with one of Ollama's models has where it names nothing else."""

    num_ctx = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "Its window in tokens"},
    )
    keep_alive = KeepAlive(
        may_be_zero=True,
        allow_none=True,
        metadata={"description": "How long it stays in memory: seconds, or such as `10m`"},
    )
    think = ThinkField(allow_none=True, metadata={"description": "Whether it is to think, and how much"})


class UsageSettingsSchema(RequestSchema):
    """How long the calls to providers are kept."""

    keep_days = fields.Int(
        strict=True,
        validate=validate.Range(1, 36_500),
        metadata={"description": "For how many days calls are kept"},
    )


class SettingsSchema(RequestSchema):
    """The settings; `PUT` changes those that it names."""

    default_provider = fields.Str(metadata={"description": "The provider of a chat that names none"})
    fallback_provider = fields.Str(
        allow_none=True,
        metadata={"description": "Who answers when the first provider cannot; null for nobody"},
    )
    system_prompt = fields.Str(
        validate=validate.Length(max=100_000),
        metadata={"description": "For chats that bring none; empty for none"},
    )
    temperature = StrictFloat(
        allow_none=True,
        validate=validate.Range(0, 2),
        metadata={"description": "For chats that name none; null leaves it to the provider"},
    )
    max_tokens = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={
            "description": "For chats that name none; null leaves it to the provider. Never sent to Ollama."
        },
    )
    timeouts = fields.Nested(TimeoutsSchema)
    pinned_models = fields.List(
        fields.Str(validate=_check_name),
        validate=validate.Length(max=1000),
        metadata={"description": "Models that are only updated when they are named"},
    )
    protected_models = fields.List(
        fields.Str(validate=_check_name),
        validate=validate.Length(max=1000),
        metadata={"description": "Models that are not deleted, nor replaced by a copy or a new one"},
    )
    keep_versions = fields.Int(
        strict=True,
        validate=validate.Range(0, 10),
        metadata={"description": "How many former versions of a model an update keeps"},
    )
    model_defaults = fields.Dict(
        keys=fields.Str(validate=_check_name),
        values=fields.Nested(ModelDefaultsSchema, allow_none=True),
        validate=validate.Length(max=1000),
        metadata={
            "description": "By the model's name: its window, its time in memory, its thinking. `PUT` changes "
            "the models that it names; null takes a model out"
        },
    )
    updates = fields.Nested(UpdateSettingsSchema)
    pulls = fields.Nested(PullSettingsSchema)
    usage = fields.Nested(UsageSettingsSchema)

"""The settings that a user changes while the program runs."""

from __future__ import annotations

from typing import TypedDict

from marshmallow import ValidationError, fields, validate

from app.model_name import ModelName
from app.schemas.fields import Items, KeepAlive, RequestSchema, StrictBool, StrictFloat, Table
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

    connect = StrictFloat(validate=_seconds, metadata={"description": "For the connection"})
    first_byte = StrictFloat(
        validate=_seconds,
        metadata={"description": "For the first byte of an answer, while a model may be loading"},
    )
    idle = StrictFloat(validate=_seconds, metadata={"description": "For each further byte of an answer"})
    list = StrictFloat(validate=_seconds, metadata={"description": "For a list of models"})
    pull = StrictFloat(
        validate=_seconds,
        metadata={"description": "For the end of a pull in `POST pull`; the pull goes on after this time"},
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

    enabled = StrictBool(metadata={"description": "Whether models are updated automatically; default: false"})
    time = fields.Str(
        validate=_clock, metadata={"description": "The time of day of the updates, in local time"}
    )
    window = fields.Nested(
        WindowSchema,
        allow_none=True,
        metadata={
            "description": "The part of the day, in local time, in which updates run; null for the whole day"
        },
    )
    skip_loaded = StrictBool(metadata={"description": "Do not update models that are in memory"})


class PullSettingsSchema(RequestSchema):
    """When models are pulled, how fast, and how long the pulls are kept."""

    window = fields.Nested(
        WindowSchema,
        allow_none=True,
        metadata={
            "description": "The part of the day, in local time, in which pulls run; null for the whole day. "
            "A pull with `now` runs at any time"
        },
    )
    keep_days = fields.Int(
        strict=True,
        validate=validate.Range(1, 3650),
        metadata={"description": "How many days finished pulls stay in the list"},
    )
    max_bytes_per_second = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(10_000, 2**53),
        metadata={
            "description": "The limit for all pulls together, as an average over about a minute; null: none"
        },
    )


class ModelDefaultsSchema(RequestSchema):
    """The defaults for chats with one of Ollama's models."""

    num_ctx = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "The model's window in tokens"},
    )
    keep_alive = KeepAlive(
        may_be_zero=True,
        allow_none=True,
        metadata={
            "description": "How long the model stays in memory: seconds, or a duration such as `10m`; "
            "negative for ever"
        },
    )
    think = ThinkField(
        allow_none=True, metadata={"description": "Whether the model thinks before it answers, and how much"}
    )


class UsageSettingsSchema(RequestSchema):
    """How long the records of calls to providers are kept."""

    keep_days = fields.Int(
        strict=True,
        validate=validate.Range(1, 36_500),
        metadata={"description": "How many days the records of calls are kept"},
    )


class SettingsSchema(RequestSchema):
    """The settings; `PUT` changes only the settings in its body."""

    default_provider = fields.Str(
        metadata={"description": "The provider for chats that do not name a provider"}
    )
    fallback_provider = fields.Str(
        allow_none=True,
        metadata={"description": "The provider to ask when the first one fails; null for none"},
    )
    system_prompt = fields.Str(
        validate=validate.Length(max=100_000),
        metadata={"description": "The system prompt for chats without one; an empty text for no prompt"},
    )
    temperature = StrictFloat(
        allow_none=True,
        validate=validate.Range(0, 2),
        metadata={"description": "The temperature for chats without one; null: the provider decides"},
    )
    max_tokens = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={
            "description": "The most tokens of an answer, for chats without this field; null: the provider "
            "decides. Not sent to Ollama"
        },
    )
    timeouts = fields.Nested(TimeoutsSchema)
    pinned_models = Items(
        fields.Str(validate=_check_name),
        validate=validate.Length(max=1000),
        metadata={"description": "Models that are only updated when a request names them"},
    )
    protected_models = Items(
        fields.Str(validate=_check_name),
        validate=validate.Length(max=1000),
        metadata={"description": "Models that cannot be deleted, nor replaced by a copy or a new model"},
    )
    keep_versions = fields.Int(
        strict=True,
        validate=validate.Range(0, 10),
        metadata={"description": "How many former versions of a model an update keeps"},
    )
    model_defaults = Table(
        keys=fields.Str(validate=_check_name),
        values=fields.Nested(ModelDefaultsSchema, allow_none=True),
        validate=validate.Length(max=1000),
        metadata={
            "description": "The defaults for chats with a model, by the model's name. `PUT` changes only the "
            "models in its body; null removes a model"
        },
    )
    updates = fields.Nested(UpdateSettingsSchema)
    pulls = fields.Nested(PullSettingsSchema)
    usage = fields.Nested(UsageSettingsSchema)

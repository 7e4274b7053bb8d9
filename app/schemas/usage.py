"""Sums of the calls to providers."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any, TypedDict

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.schemas.base import UpstreamSchema
from app.schemas.fields import RequestSchema, no_controls

GROUPS = ("day", "provider", "model")

_a_date = validate.Range(date(1970, 1, 1), date(9998, 12, 31))


def _today() -> date:
    return datetime.now(timezone.utc).date()


class GroupsField(fields.Str):
    """Some of day, provider and model, separated by commas."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        names = [name.strip() for name in super()._deserialize(value, *args, **kwargs).split(",")]
        if not set(names) <= set(GROUPS):
            raise ValidationError("Give some of day,provider,model, separated by commas.")
        return names


class UsageSum(TypedDict):
    """What :class:`UsageSumSchema` dumps."""

    calls: int
    failures: int
    stopped: int
    prompt_tokens: int
    completion_tokens: int
    estimated: int
    latency_p50: float | None
    latency_p95: float | None
    tokens_per_second_mean: float | None
    tokens_per_second_p50: float | None
    tokens_per_second_p95: float | None
    time_to_first_token_p50: float | None


class UsageGroup(UsageSum, total=False):
    """What :class:`UsageGroupSchema` dumps: some of :data:`GROUPS`, and the sum."""

    day: str
    provider: str
    model: str


UsageReport = TypedDict(  # not a class statement: `from` is a keyword
    "UsageReport", {"from": date, "to": date, "usage": list[UsageGroup], "totals": UsageSum}
)
"""What `UsageReportSchema` dumps."""


class UsageQuerySchema(RequestSchema):
    """Which calls to sum up, and how."""

    since = fields.Date(
        data_key="from",
        load_default=lambda: _today() - timedelta(days=29),
        validate=_a_date,
        metadata={"description": "The first day, in UTC; default: 29 days before today"},
    )
    until = fields.Date(
        data_key="to",
        load_default=_today,
        validate=_a_date,
        metadata={"description": "The last day, in UTC; default: today"},
    )
    provider = fields.Str(
        load_default=None, validate=no_controls, metadata={"description": "Only calls to this provider"}
    )
    model = fields.Str(
        load_default=None,
        validate=no_controls,
        metadata={"description": "Only calls to this model"},
    )
    by = GroupsField(
        load_default=list(GROUPS),
        metadata={"description": "How to group: some of `day,provider,model`; default: all three"},
    )

    @validates_schema
    def _is_a_range(self, data: dict[str, Any], **_: Any) -> None:
        if data["since"] > data["until"]:
            raise ValidationError("It is after the last day.", "from")


class Rounded(fields.Float):
    """A number, rounded to three decimals."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> float | None:
        return None if value is None else round(value, 3)


class UsageSumSchema(UpstreamSchema):
    """The sums and averages of some calls."""

    calls = fields.Int()
    failures = fields.Int()
    stopped = fields.Int(
        metadata={"description": "Calls that a request stopped, or that ended because the client left"}
    )
    prompt_tokens = fields.Int()
    completion_tokens = fields.Int()
    estimated = fields.Int(metadata={"description": "Calls that did not fail and whose tokens are estimated"})
    latency_p50 = Rounded(
        allow_none=True, metadata={"description": "Seconds; the median of the calls that succeeded"}
    )
    latency_p95 = Rounded(allow_none=True)
    tokens_per_second_mean = Rounded(
        allow_none=True, metadata={"description": "The mean of the speeds of the calls"}
    )
    tokens_per_second_p50 = Rounded(allow_none=True)
    tokens_per_second_p95 = Rounded(allow_none=True)
    time_to_first_token_p50 = Rounded(allow_none=True, metadata={"description": "Seconds"})


class UsageGroupSchema(UsageSumSchema):
    """The calls of a day, a provider or a model, as the request groups them."""

    day = fields.Str(metadata={"description": "The day in UTC"})
    provider = fields.Str()
    model = fields.Str()


UsageReportSchema = Schema.from_dict(  # not a class statement: `from` is a keyword
    {
        "from": fields.Date(),
        "to": fields.Date(),
        "usage": fields.List(fields.Nested(UsageGroupSchema)),
        "totals": fields.Nested(UsageSumSchema),
    },
    name="UsageReportSchema",
)

"""Providers: the services that answer chats."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import fields, post_load, pre_load, validate

from app.schemas.base import RequestSchema, UpstreamSchema
from app.schemas.fields import StrictBool, check_base_url, no_controls, not_blank

PROVIDER_ID = r"^[a-z0-9][a-z0-9_-]{0,62}\Z"
KINDS = ("ollama", "openai")
TEST_STATUSES = (
    "connected",
    "connection_refused",
    "timeout",
    "unauthorized",
    "not_ollama",
    "no_models",
    "error",
)


def _name_field(*, required: bool = False) -> fields.Str:
    return fields.Str(
        required=required,
        validate=[validate.Length(max=100), not_blank("Name")],
        metadata={"description": "The name that people see"},
    )


def _base_url_field(*, required: bool = False) -> fields.Str:
    return fields.Str(
        required=required,
        validate=[validate.Length(max=2000), check_base_url],
        metadata={"description": "Where its OpenAI-compatible API is, ending in `/v1` as a rule"},
    )


class ProviderFieldsSchema(RequestSchema):
    """What a person may set of a provider."""

    name = _name_field()
    kind = fields.Str(
        validate=validate.OneOf(KINDS),
        metadata={"description": "`ollama` for an Ollama server, else `openai`"},
    )
    enabled = StrictBool(metadata={"description": "Whether chats may use it"})
    api_key = fields.Str(
        validate=[
            validate.Length(max=1000),
            validate.Regexp(r"^[\x21-\x7e]*\Z", error="Printable ASCII characters only."),
        ],
        load_only=True,
        metadata={"description": "Write-only. An empty text removes it."},
    )
    model = fields.Str(
        validate=[no_controls, validate.Length(max=300)],
        metadata={"description": "The model for requests that name none"},
    )
    base_url = _base_url_field()


class ProviderSchema(ProviderFieldsSchema):
    """A provider, as the API answers it."""

    id = fields.Str(dump_only=True, metadata={"description": "Its key in URLs and requests"})
    custom = fields.Bool(dump_only=True, metadata={"description": "Whether it was added here, not shipped"})
    status = fields.Str(
        dump_only=True,
        metadata={"description": f"The last test's outcome: {', '.join(TEST_STATUSES)}"},
    )
    last_checked = fields.Str(
        dump_only=True, metadata={"description": "When it was tested last, ISO 8601, or empty"}
    )
    api_key_set = fields.Bool(dump_only=True, metadata={"description": "Whether there is a key"})
    api_key_last4 = fields.Str(dump_only=True, metadata={"description": "The key's last four characters"})
    api_key_source = fields.Str(
        dump_only=True,
        metadata={"description": "`settings`, or the environment variable it comes from"},
    )


class ProviderReplaceSchema(ProviderSchema):
    """The body of ``PUT``: a client may send back what it read, so read-only fields are ignored."""

    name = _name_field(required=True)
    base_url = _base_url_field(required=True)

    @pre_load
    def _drop_read_only(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict):
            return data
        read_only = {name for name, field in self.fields.items() if field.dump_only}
        return {key: value for key, value in data.items() if key not in read_only}


class ProviderCreateSchema(ProviderFieldsSchema):
    """The body of ``POST``: a provider of one's own."""

    id = fields.Str(
        required=True,
        validate=validate.Regexp(
            PROVIDER_ID, error="Lower-case letters, digits, '-' and '_' only, 63 at most."
        ),
        metadata={"description": "Its key in URLs and requests"},
    )
    base_url = _base_url_field(required=True)


class StoredProvider(TypedDict, total=False):
    """What :class:`StoredProviderSchema` loads, or ``providers.json`` ships."""

    name: str
    kind: str
    enabled: bool
    api_key: str
    api_key_env: str
    model: str
    base_url: str
    status: str
    last_checked: str


class StoredProviderSchema(ProviderFieldsSchema):
    """What the file in the data folder keeps of a provider."""

    status = fields.Str()
    last_checked = fields.Str()


class ProviderTestSchema(RequestSchema):
    """The outcome of a provider's test."""

    provider = fields.Str()
    status = fields.Str(validate=validate.OneOf(TEST_STATUSES))
    message = fields.Str(metadata={"description": "What was found"})
    hint = fields.Str(metadata={"description": "How to mend it"})
    models = fields.Int(metadata={"description": "How many models it offers"})
    version = fields.Str(metadata={"description": "Its version, where it tells one (Ollama)"})
    latency = fields.Float(metadata={"description": "Seconds until it had answered"})
    last_checked = fields.Str()


class ProviderTest(TypedDict, total=False):
    """What :class:`ProviderTestSchema` dumps."""

    provider: str
    status: str
    message: str
    hint: str
    models: int
    version: str
    latency: float
    last_checked: str


class ProviderModelSchema(UpstreamSchema):
    """A model of an OpenAI-compatible provider, as its ``GET /models`` lists it."""

    id = fields.Str(required=True)
    name = fields.Function(lambda model: model["id"])
    created = fields.Int(allow_none=True)
    owned_by = fields.Str(allow_none=True)


class ProviderModelListSchema(UpstreamSchema):
    """The models that a provider offers."""

    models = fields.List(fields.Nested(ProviderModelSchema))
    total = fields.Int(metadata={"description": "How many models there are"})


class _Identified(TypedDict):
    id: str


class ProviderModel(_Identified, total=False):
    """What :class:`ProviderModelSchema` loads."""

    created: int | None
    owned_by: str | None


class ProviderModels(TypedDict):
    """What :class:`UpstreamProviderModelsSchema` loads."""

    models: list[ProviderModel]
    total: int


class UpstreamProviderModelsSchema(UpstreamSchema):
    """``GET /v1/models`` of an OpenAI-compatible server; Ollama's `data` is null when it has none."""

    data = fields.List(fields.Nested(ProviderModelSchema(exclude=["name"])), required=True, allow_none=True)

    @post_load
    def _count(self, answer: dict[str, Any], **_: Any) -> ProviderModels:
        models: list[ProviderModel] = answer["data"] or []
        return {"models": models, "total": len(models)}

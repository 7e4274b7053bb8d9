"""Providers: the services that answer chats."""

from __future__ import annotations

from typing import Any, TypedDict
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, post_load, pre_load, validate

from app.schemas.base import UpstreamSchema
from app.schemas.fields import Count, Entries, RequestSchema, StrictBool, Text, no_controls, not_blank
from app.upstream.json import MAX_COUNT

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


def _check_base_url(value: str) -> None:
    """Check the address of a provider: an http or https URL without a password, query or fragment."""
    try:
        url = urlsplit(value)
        port_is_valid = url.port != 0
        (url.hostname or "").encode("idna")
    except ValueError as exc:
        raise ValidationError("Not a URL, for example http://localhost:11434/v1") from exc
    if url.scheme not in {"http", "https"} or not url.hostname or not port_is_valid:
        raise ValidationError("Give an http or https URL, for example http://localhost:11434/v1")
    if url.username or url.password:
        raise ValidationError("Leave user and password out of the URL; set api_key instead")
    if url.query or url.fragment or any(c.isspace() for c in value):
        raise ValidationError("Give the URL up to its path, without '?', '#' or spaces")


def _name_field(*, required: bool = False) -> fields.Str:
    return fields.Str(
        required=required,
        validate=[validate.Length(max=100), not_blank("Name")],
        metadata={"description": "The name to show to people"},
    )


def _base_url_field(*, required: bool = False) -> fields.Str:
    return fields.Str(
        required=required,
        validate=[validate.Length(max=2000), _check_base_url],
        metadata={"description": "The address of its OpenAI-compatible API, which usually ends in `/v1`"},
    )


class ProviderFieldsSchema(RequestSchema):
    """The fields of a provider that a user can set."""

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
        metadata={"description": "Write-only; an empty text removes the key"},
    )
    model = fields.Str(
        validate=[no_controls, validate.Length(max=300)],
        metadata={"description": "The model for requests that name none"},
    )
    base_url = _base_url_field()


class ProviderSchema(ProviderFieldsSchema):
    """A provider."""

    id = fields.Str(dump_only=True, metadata={"description": "The provider's id in URLs and requests"})
    custom = fields.Bool(
        dump_only=True, metadata={"description": "Whether a user added it; false: shipped with the program"}
    )
    status = fields.Str(
        dump_only=True,
        metadata={
            "description": f"The outcome of the last test: {', '.join(TEST_STATUSES)}; `disconnected` before "
            "the first test"
        },
    )
    last_checked = fields.Str(
        dump_only=True, metadata={"description": "The time of the last test in ISO 8601; empty before it"}
    )
    api_key_set = fields.Bool(dump_only=True, metadata={"description": "Whether the provider has an API key"})
    api_key_last4 = fields.Str(
        dump_only=True, metadata={"description": "The key's last four characters; empty for a short key"}
    )
    api_key_source = fields.Str(
        dump_only=True,
        metadata={
            "description": "Where the key comes from: `settings`, or the name of an environment variable; "
            "empty without a key"
        },
    )


class ProviderReplaceSchema(ProviderSchema):
    """The body of ``PUT``; ignores read-only fields, so that a client can send back what it has read."""

    name = _name_field(required=True)
    base_url = _base_url_field(required=True)

    @pre_load
    def _drop_read_only(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict):
            return data
        read_only = {name for name, field in self.fields.items() if field.dump_only}
        return {key: value for key, value in data.items() if key not in read_only}


class ProviderCreateSchema(ProviderFieldsSchema):
    """The body of ``POST``: a custom provider."""

    id = fields.Str(
        required=True,
        validate=validate.Regexp(
            PROVIDER_ID, error="Lower-case letters, digits, '-' and '_' only, 63 at most."
        ),
        metadata={"description": "The provider's id in URLs and requests"},
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
    """A provider in the file in the data folder."""

    status = fields.Str()
    last_checked = fields.Str()


class ProviderTestSchema(RequestSchema):
    """The outcome of a provider's test."""

    provider = fields.Str()
    status = fields.Str(validate=validate.OneOf(TEST_STATUSES))
    message = fields.Str(metadata={"description": "The outcome as a sentence"})
    hint = fields.Str(metadata={"description": "How to solve the problem, if there is one"})
    models = fields.Int(metadata={"description": "The number of models that the provider offers"})
    version = fields.Str(metadata={"description": "The version of the server; only for Ollama"})
    latency = fields.Float(metadata={"description": "Seconds that the test took"})
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
    """A model that a provider offers."""

    id = Text(required=True)
    name = fields.Function(lambda model: model["id"])
    created = Count(least=-MAX_COUNT, allow_none=True)
    owned_by = Text(allow_none=True)


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
    """``GET /v1/models`` of an OpenAI-compatible server; Ollama's `data` is null if it has no model."""

    data = Entries(ProviderModelSchema(exclude=["name"]))

    @post_load
    def _count(self, answer: dict[str, Any], **_: Any) -> ProviderModels:
        models: list[ProviderModel] = answer["data"] or []
        return {"models": models, "total": len(models)}

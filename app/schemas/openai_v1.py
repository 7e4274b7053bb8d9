"""The requests and answers of OpenAI's API. Fields without a schema here are passed on unchanged."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import INCLUDE, ValidationError, fields, validate

from app.schemas.base import UpstreamSchema
from app.schemas.fields import Items, RequestSchema, StrictBool, no_controls

_MODEL = (
    "`provider/model`, or a model of the default provider; default: the model in that provider's settings"
)


class PromptField(fields.Field[Any]):
    """A text, or a list of texts or tokens, that is not empty."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, str | list) or not value:
            raise ValidationError("Give a text or a list that is not empty.")
        return value


class PassedOnSchema(RequestSchema):
    """A body that is passed on to the provider; only a few of its fields are read."""

    class Meta:
        unknown = INCLUDE

    model = fields.Str(
        allow_none=True,
        validate=[no_controls, validate.Length(max=400)],
        metadata={"description": _MODEL},
    )


class OpenAIRequest(TypedDict, total=False):
    """The fields that are read of a body; the body may have any other field too."""

    model: str | None
    stream: bool | None
    input: str | list[Any]
    prompt: str | list[Any]
    n: Any
    dimensions: int
    encoding_format: str


class StreamableSchema(PassedOnSchema):
    """A request whose answer may be a stream."""

    stream = StrictBool(
        allow_none=True, metadata={"description": "Answer with a stream of chunks that ends with `[DONE]`"}
    )


class OpenAIChatSchema(StreamableSchema):
    """``POST /v1/chat/completions``."""

    messages = Items(
        fields.Dict(),
        required=True,
        validate=validate.Length(1),
        metadata={"description": "The conversation"},
    )


class OpenAICompletionSchema(StreamableSchema):
    """``POST /v1/completions``."""

    prompt = PromptField(required=True, metadata={"description": "The text to continue"})


class OpenAIEmbeddingSchema(PassedOnSchema):
    """``POST /v1/embeddings``."""

    input = PromptField(required=True, metadata={"description": "The text or texts to embed"})


class OpenAIUsage(TypedDict, total=False):
    """The tokens of an answer, unchecked."""

    prompt_tokens: Any
    completion_tokens: Any
    total_tokens: Any


class OpenAIAnswer(TypedDict, total=False):
    """The fields that are read of an answer without a stream, unchecked."""

    data: Any
    usage: Any


class OpenAIAnswerSchema(UpstreamSchema):
    """The provider's answer, byte for byte."""

    id = fields.Str()
    object = fields.Str()
    created = fields.Int()
    model = fields.Str(metadata={"description": "The provider's own name of the model"})
    choices = fields.List(fields.Dict())
    data = fields.List(fields.Dict(), metadata={"description": "The embeddings, of `/v1/embeddings`"})
    usage = fields.Dict()


class OpenAIModel(TypedDict):
    """What :class:`OpenAIModelSchema` shows."""

    id: str
    object: str
    created: int
    owned_by: str


class OpenAIModelList(TypedDict):
    """What :class:`OpenAIModelListSchema` shows."""

    object: str
    data: list[OpenAIModel]


class OpenAIModelSchema(UpstreamSchema):
    """A model."""

    id = fields.Str(metadata={"description": "The name for `model` in a request"})
    object = fields.Str()
    created = fields.Int(metadata={"description": "Seconds since 1970; 0 if the provider does not tell"})
    owned_by = fields.Str()


class OpenAIModelListSchema(UpstreamSchema):
    """The models of all enabled providers that answered."""

    object = fields.Str()
    data = fields.List(fields.Nested(OpenAIModelSchema))


class OpenAIErrorDetailSchema(UpstreamSchema):
    """The error."""

    message = fields.Str(metadata={"description": "What is wrong and how to solve it"})
    type = fields.Str(metadata={"description": "OpenAI's name for the kind of error"})
    param = fields.Str(allow_none=True, metadata={"description": "The field at fault"})
    code = fields.Str(metadata={"description": "The `error_type` of this API; see docs/errors.md"})


class OpenAIErrorSchema(UpstreamSchema):
    """The body of every error below ``/v1``."""

    error = fields.Nested(OpenAIErrorDetailSchema)

"""The requests and answers of OpenAI's API; fields that are not named here are passed on as they are."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import INCLUDE, ValidationError, fields, validate

from app.schemas.base import RequestSchema, UpstreamSchema
from app.schemas.fields import StrictBool, no_controls

_MODEL = "`provider/model`, or a model of the default provider; when there is none, the model of its settings"


class PromptField(fields.Field[Any]):
    """A text, or a list of texts or tokens; not empty."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, str | list) or not value:
            raise ValidationError("Give a text or a list that is not empty.")
        return value


class PassedOnSchema(RequestSchema):
    """A body whose fields are for the provider, but for a few."""

    class Meta:
        unknown = INCLUDE

    model = fields.Str(
        allow_none=True,
        validate=[no_controls, validate.Length(max=400)],
        metadata={"description": _MODEL},
    )


class OpenAIRequest(TypedDict, total=False):
    """What is read of a body that is passed on; any other field may be in it too."""

    model: str | None
    stream: bool | None
    input: str | list[Any]
    prompt: str | list[Any]
    n: Any
    dimensions: int
    encoding_format: str


class StreamableSchema(PassedOnSchema):
    """A body whose answer may be a stream."""

    stream = StrictBool(
        allow_none=True, metadata={"description": "Answer as a stream of chunks that ends with `[DONE]`"}
    )


class OpenAIChatSchema(StreamableSchema):
    """``POST /v1/chat/completions``."""

    messages = fields.List(
        fields.Dict(),
        required=True,
        validate=validate.Length(1),
        metadata={"description": "The conversation"},
    )


class OpenAICompletionSchema(StreamableSchema):
    """``POST /v1/completions``."""

    prompt = PromptField(required=True, metadata={"description": "What is to be continued"})


class OpenAIEmbeddingSchema(PassedOnSchema):
    """``POST /v1/embeddings``."""

    input = PromptField(required=True, metadata={"description": "What is to be embedded"})


class OpenAIUsage(TypedDict, total=False):
    """The tokens of an answer, unchecked."""

    prompt_tokens: Any
    completion_tokens: Any
    total_tokens: Any


class OpenAIAnswer(TypedDict, total=False):
    """What is read of an answer that came in one piece, unchecked."""

    data: Any
    usage: Any


class OpenAIAnswerSchema(UpstreamSchema):
    """An answer of the provider, byte for byte."""

    id = fields.Str()
    object = fields.Str()
    created = fields.Int()
    model = fields.Str(metadata={"description": "As the provider calls it"})
    choices = fields.List(fields.Dict())
    data = fields.List(fields.Dict(), metadata={"description": "Embeddings"})
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

    id = fields.Str(metadata={"description": "The name to ask for it by"})
    object = fields.Str()
    created = fields.Int(metadata={"description": "Seconds since 1970; 0 where the provider tells none"})
    owned_by = fields.Str()


class OpenAIModelListSchema(UpstreamSchema):
    """The models of all enabled providers that answer."""

    object = fields.Str()
    data = fields.List(fields.Nested(OpenAIModelSchema))


class OpenAIErrorDetailSchema(UpstreamSchema):
    """What went wrong."""

    message = fields.Str(metadata={"description": "What is wrong and how to mend it"})
    type = fields.Str(metadata={"description": "OpenAI's name for the kind of error"})
    param = fields.Str(allow_none=True, metadata={"description": "The field at fault"})
    code = fields.Str(metadata={"description": "Our `error_type`; see docs/errors.md"})


class OpenAIErrorSchema(UpstreamSchema):
    """The body of every failure below ``/v1``."""

    error = fields.Nested(OpenAIErrorDetailSchema)

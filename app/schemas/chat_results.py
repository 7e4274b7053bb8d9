"""The answers to chats and comparisons."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import fields

from app.schemas.base import UpstreamSchema
from app.schemas.messages import ToolCall


class Usage(TypedDict):
    """The tokens of an answer; ``estimated`` if the provider told no numbers."""

    prompt_tokens: int | None
    completion_tokens: int
    total_tokens: int | None
    estimated: bool


class _ToldUsage(TypedDict):
    completion_tokens: int


class ToldUsage(_ToldUsage, total=False):
    """The tokens as the provider counted them."""

    prompt_tokens: int | None
    total_tokens: int | None


class UsedContext(TypedDict, total=False):
    """How full the model's window is; see :class:`UsedContextSchema`."""

    used: int | None
    window: int | None
    truncated: bool | None
    dropped_messages: int


class ChatResult(TypedDict, total=False):
    """What :class:`ChatResponseSchema` dumps; times are in seconds."""

    response: str
    provider: str
    model: str
    tokens: int
    response_time: float
    usage: Usage
    finish_reason: str
    time_to_first_token: float
    tokens_per_second: float
    load_time: float
    context: UsedContext
    thinking: str
    thinking_exhausted: bool
    tool_calls: list[ToolCall]
    format_valid: bool | None
    format_error: str
    logprobs: list[dict[str, Any]]
    notice: str
    fallback_used: bool
    first_error: dict[str, Any]
    conversation_id: str
    request_id: str


class UsageSchema(UpstreamSchema):
    """The tokens of the prompt and the answer."""

    prompt_tokens = fields.Int(allow_none=True)
    completion_tokens = fields.Int()
    total_tokens = fields.Int(allow_none=True)
    estimated = fields.Bool(
        metadata={"description": "Whether the numbers are estimated, because the provider told none"}
    )


class UsedContextSchema(UpstreamSchema):
    """How full the model's window is."""

    used = fields.Int(allow_none=True, metadata={"description": "Tokens of the prompt and the answer"})
    window = fields.Int(allow_none=True, metadata={"description": "The size of the model's window in tokens"})
    truncated = fields.Bool(
        allow_none=True,
        metadata={"description": "Whether the model did not see all of the messages; null if unknown"},
    )
    dropped_messages = fields.Int(
        metadata={"description": "How many of the conversation's oldest messages were not sent"}
    )


class AnsweredFunctionSchema(UpstreamSchema):
    """The function that the model calls, and its arguments."""

    name = fields.Str()
    arguments = fields.Raw(metadata={"description": "An object; a text if the model did not write an object"})


class AnsweredCallSchema(UpstreamSchema):
    """A tool call of the model."""

    id = fields.Str()
    type = fields.Str()
    function = fields.Nested(AnsweredFunctionSchema)


class ChatResponseSchema(UpstreamSchema):
    """The answer to a chat; also the data of a stream's `done`."""

    response = fields.Str(metadata={"description": "The model's answer"})
    provider = fields.Str(metadata={"description": "The id of the provider that answered"})
    model = fields.Str(metadata={"description": "The model that answered"})
    tokens = fields.Int(metadata={"description": "Tokens of the answer, as in `usage.completion_tokens`"})
    response_time = fields.Float(metadata={"description": "Seconds from the request to the whole answer"})
    usage = fields.Nested(UsageSchema)
    finish_reason = fields.Str(
        metadata={"description": "Why the answer ended: `stop`, `length` (a limit of tokens) or `tool_calls`"}
    )
    time_to_first_token = fields.Float(metadata={"description": "Seconds; only for streams"})
    tokens_per_second = fields.Float(
        metadata={"description": "The speed that the provider tells, else the measured speed"}
    )
    load_time = fields.Float(
        metadata={"description": "Seconds of loading the model, if the provider tells them"}
    )
    context = fields.Nested(UsedContextSchema)
    thinking = fields.Str(metadata={"description": "The model's thoughts, if the model has thought"})
    thinking_exhausted = fields.Bool(
        metadata={"description": "Whether thinking used all tokens, so that none was left for an answer"}
    )
    tool_calls = fields.List(fields.Nested(AnsweredCallSchema))
    format_valid = fields.Bool(
        allow_none=True,
        metadata={
            "description": "Whether the answer follows `format`; null if that could not be checked: `notice` "
            "says why"
        },
    )
    format_error = fields.Str(metadata={"description": "How the answer breaks `format`, if it does"})
    logprobs = fields.List(
        fields.Dict(keys=fields.Str()),
        metadata={"description": "One entry for each token, in the form of OpenAI's API"},
    )
    notice = fields.Str(metadata={"description": "Which part of the request was changed or ignored, and why"})
    fallback_used = fields.Bool(
        metadata={"description": "Whether the fallback provider answered, because the first provider failed"}
    )
    first_error = fields.Dict(
        keys=fields.Str(), metadata={"description": "The error body of the first provider's failure"}
    )
    conversation_id = fields.Str(metadata={"description": "The conversation in which the answer is stored"})
    request_id = fields.Str()


class CompareResultSchema(ChatResponseSchema):
    """The answer of one target, or its error body."""

    target = fields.Int(metadata={"description": "The position in `targets`, from 0"})
    ok = fields.Bool(metadata={"description": "Whether the target answered; false: `error` says why not"})
    error = fields.Str()
    error_type = fields.Str()
    hint = fields.Str()
    details = fields.Dict(keys=fields.Str())


class CompareResponseSchema(UpstreamSchema):
    """The answers in the order of `targets`; also the data of a stream's `done`."""

    results = fields.List(fields.Nested(CompareResultSchema))
    request_id = fields.Str()

"""What is answered to a chat."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import fields

from app.schemas.base import UpstreamSchema
from app.schemas.messages import ToolCall


class Usage(TypedDict):
    """The tokens of an answer; ``estimated`` where the provider told none and they were guessed."""

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
    format_valid: bool
    format_error: str
    logprobs: list[dict[str, Any]]
    notice: str
    fallback_used: bool
    first_error: dict[str, Any]
    conversation_id: str
    request_id: str


class UsageSchema(UpstreamSchema):
    """How many tokens an answer took."""

    prompt_tokens = fields.Int(allow_none=True)
    completion_tokens = fields.Int()
    total_tokens = fields.Int(allow_none=True)
    estimated = fields.Bool(metadata={"description": "Whether the provider told none and they were guessed"})


class UsedContextSchema(UpstreamSchema):
    """How full the model's window is."""

    used = fields.Int(allow_none=True, metadata={"description": "Tokens of the prompt and the answer"})
    window = fields.Int(allow_none=True, metadata={"description": "Tokens that the model looks at"})
    truncated = fields.Bool(
        allow_none=True,
        metadata={"description": "Whether a part of the messages was left out; null where that is not known"},
    )
    dropped_messages = fields.Int(
        metadata={"description": "How many of the conversation's oldest messages were not sent"}
    )


class AnsweredFunctionSchema(UpstreamSchema):
    """Which function the model wants called, and with what."""

    name = fields.Str()
    arguments = fields.Raw(metadata={"description": "An object; a text where the model wrote none"})


class AnsweredCallSchema(UpstreamSchema):
    """A tool call that the model asks for."""

    id = fields.Str()
    type = fields.Str()
    function = fields.Nested(AnsweredFunctionSchema)


class ChatResponseSchema(UpstreamSchema):
    """What is answered; also the data of a stream's `done`."""

    response = fields.Str(metadata={"description": "What the model says"})
    provider = fields.Str(metadata={"description": "Who answered"})
    model = fields.Str(metadata={"description": "Which model answered"})
    tokens = fields.Int(metadata={"description": "Tokens of the answer: usage.completion_tokens"})
    response_time = fields.Float(metadata={"description": "Seconds from request to full answer"})
    usage = fields.Nested(UsageSchema)
    finish_reason = fields.Str(
        metadata={"description": "`stop`, `length` when the answer was cut at a limit, or `tool_calls`"}
    )
    time_to_first_token = fields.Float(metadata={"description": "Seconds; of streams"})
    tokens_per_second = fields.Float(metadata={"description": "As the provider tells, or as was seen"})
    load_time = fields.Float(metadata={"description": "Seconds of loading the model, where told"})
    context = fields.Nested(UsedContextSchema)
    thinking = fields.Str(metadata={"description": "What the model thought, if it did"})
    thinking_exhausted = fields.Bool(
        metadata={"description": "Whether all tokens went into thinking, and none was left for an answer"}
    )
    tool_calls = fields.List(fields.Nested(AnsweredCallSchema))
    format_valid = fields.Bool(metadata={"description": "Whether the answer follows `format`"})
    format_error = fields.Str(metadata={"description": "Where it does not"})
    logprobs = fields.List(
        fields.Dict(keys=fields.Str()), metadata={"description": "OpenAI's, one for each token"}
    )
    notice = fields.Str(metadata={"description": "What was done otherwise than asked, and why"})
    fallback_used = fields.Bool(
        metadata={"description": "Whether the fallback provider answered, for the first failed"}
    )
    first_error = fields.Dict(keys=fields.Str(), metadata={"description": "How the first provider failed"})
    conversation_id = fields.Str(metadata={"description": "The conversation in which this is kept"})
    request_id = fields.Str()


class CompareResultSchema(ChatResponseSchema):
    """One answer of several, or the error body instead."""

    target = fields.Int(metadata={"description": "The number of the target, from 0"})
    ok = fields.Bool(metadata={"description": "Whether there is an answer"})
    error = fields.Str()
    error_type = fields.Str()
    hint = fields.Str()
    details = fields.Dict(keys=fields.Str())


class CompareResponseSchema(UpstreamSchema):
    """What each one answered, in the order of `targets`; also the data of a stream's `done`."""

    results = fields.List(fields.Nested(CompareResultSchema))
    request_id = fields.Str()

"""Chats: what is asked and what is answered."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.schemas.base import RequestSchema, StrictBool, StrictFloat, UpstreamSchema, not_blank

MAX_MESSAGES = 1000


class MessageSchema(RequestSchema):
    """One turn of a conversation."""

    role = fields.Str(required=True, validate=validate.OneOf(["system", "user", "assistant"]))
    content = fields.Str(required=True)


class StopField(fields.Field[Any]):
    """One text, or a list of up to four, at which the answer ends."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
            raise ValidationError("Give a text, or a list of texts that are not empty.")
        if len(texts) > 4:
            raise ValidationError("Four at most.")
        return texts


class ChatRequestSchema(RequestSchema):
    """What is asked: `message`, or `messages`, or both (then `message` comes last)."""

    message = fields.Str(validate=not_blank("Message"), metadata={"description": "What the user says"})
    messages = fields.List(
        fields.Nested(MessageSchema),
        validate=validate.Length(1, MAX_MESSAGES),
        metadata={"description": "The conversation so far"},
    )
    provider = fields.Str(
        validate=not_blank("Provider"),
        metadata={"description": "A provider's id; else the default of the settings"},
    )
    model = fields.Str(
        allow_none=True,
        validate=[not_blank("Model"), validate.Length(max=300)],
        metadata={"description": "A model of the provider; else the one in its settings"},
    )
    system_prompt = fields.Str(
        allow_none=True,
        metadata={"description": "How the model is to behave; empty for no prompt at all"},
    )
    temperature = StrictFloat(allow_none=True, validate=validate.Range(0, 2))
    top_p = StrictFloat(allow_none=True, validate=validate.Range(0, 1))
    stop = StopField(allow_none=True, metadata={"description": "Where the answer ends"})
    seed = fields.Int(strict=True, allow_none=True, validate=validate.Range(-(2**63), 2**63 - 1))
    max_tokens = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "Never sent to Ollama; the answer then says so in `notice`"},
    )
    stream = StrictBool(
        load_default=False,
        metadata={"description": "Answer as an event stream: `start`, `delta`, `done` or `error`"},
    )

    @validates_schema
    def _has_something_to_answer(self, data: dict[str, Any], **_: Any) -> None:
        if "message" not in data and "messages" not in data:
            raise ValidationError("Message is required", "message")
        starts_with_system = data.get("messages", [{}])[0].get("role") == "system"
        if starts_with_system and data.get("system_prompt"):
            raise ValidationError("Give it here or as the first of messages, not both.", "system_prompt")


class UsageSchema(UpstreamSchema):
    """How many tokens an answer took."""

    prompt_tokens = fields.Int(allow_none=True)
    completion_tokens = fields.Int()
    total_tokens = fields.Int(allow_none=True)
    estimated = fields.Bool(metadata={"description": "Whether the provider told none and they were guessed"})


class ChatResponseSchema(UpstreamSchema):
    """What is answered; also the data of a stream's `done`."""

    response = fields.Str(metadata={"description": "What the model says"})
    provider = fields.Str(metadata={"description": "Who answered"})
    model = fields.Str(metadata={"description": "Which model answered"})
    tokens = fields.Int(metadata={"description": "Tokens of the answer: usage.completion_tokens"})
    response_time = fields.Float(metadata={"description": "Seconds from request to full answer"})
    usage = fields.Nested(UsageSchema)
    finish_reason = fields.Str(
        metadata={"description": "`stop`, or `length` when the answer was cut at a limit"}
    )
    thinking = fields.Str(metadata={"description": "What the model thought, if it did"})
    notice = fields.Str(metadata={"description": "What was done otherwise than asked, and why"})
    fallback_used = fields.Bool(
        metadata={"description": "Whether the fallback provider answered, for the first failed"}
    )
    first_error = fields.Dict(keys=fields.Str(), metadata={"description": "How the first provider failed"})
    request_id = fields.Str()

"""What is asked in a chat."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import ValidationError, fields, validate, validates_schema

from app.schemas.base import RequestSchema
from app.schemas.fields import KeepAlive, StrictBool, StrictFloat, TextsField, no_controls, not_blank
from app.schemas.messages import MAX_IMAGES, ImageField, Message, MessageSchema, ToolSchema
from app.schemas.options import FormatField, OptionsSchema, ThinkField

MAX_MESSAGES = 1000


class ChatBody(TypedDict, total=False):
    """What :class:`ChatRequestSchema` loads.

    ``dropped_messages`` is set by a conversation that did not fit the model's window.
    """

    message: str
    messages: list[Message]
    images: list[str]
    system_prompt: str | None
    provider: str | None
    fallback_provider: str | None
    model: str | None
    conversation_id: str | None
    dropped_messages: int
    temperature: float | None
    top_p: float | None
    stop: list[str] | None
    seed: int | None
    max_tokens: int | None
    tools: list[dict[str, Any]]
    format: str | dict[str, Any] | None
    think: bool | str | None
    logprobs: bool
    top_logprobs: int
    options: dict[str, Any]
    keep_alive: float | str | None
    truncate: bool
    stream: bool


class TargetSchema(RequestSchema):
    """Who is asked."""

    provider = fields.Str(
        validate=not_blank("Provider"),
        metadata={"description": "A provider's id; else the default of the settings"},
    )
    model = fields.Str(
        allow_none=True,
        validate=[not_blank("Model"), no_controls, validate.Length(max=300)],
        metadata={"description": "A model of the provider; else the one in its settings"},
    )


class QuestionSchema(RequestSchema):
    """What is asked: `message`, or `messages`, or both (then `message` comes last)."""

    message = fields.Str(validate=not_blank("Message"), metadata={"description": "What the user says"})
    messages = fields.List(
        fields.Nested(MessageSchema),
        validate=validate.Length(1, MAX_MESSAGES),
        metadata={"description": "The conversation so far"},
    )
    system_prompt = fields.Str(
        allow_none=True,
        metadata={"description": "How the model is to behave; empty for no prompt at all"},
    )
    temperature = StrictFloat(allow_none=True, validate=validate.Range(0, 2))
    top_p = StrictFloat(allow_none=True, validate=validate.Range(0, 1))
    stop = TextsField(
        allow_none=True,
        count=validate.Length(max=4, error="Four at most."),
        metadata={"description": "Where the answer ends"},
    )
    seed = fields.Int(strict=True, allow_none=True, validate=validate.Range(-(2**63), 2**63 - 1))
    max_tokens = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "Never sent to Ollama; the answer then says so in `notice`"},
    )
    images = fields.List(
        ImageField(),
        validate=validate.Length(1, MAX_IMAGES),
        metadata={"description": "What `message` is about: base64 or data URIs of PNG, JPEG, WebP or GIF"},
    )
    tools = fields.List(
        fields.Nested(ToolSchema),
        validate=validate.Length(1, 128),
        metadata={"description": "The functions that the model may ask for, in `tool_calls`"},
    )
    format = FormatField(
        allow_none=True,
        metadata={
            "description": "`json`, or a JSON schema. The answer is checked against it: `format_valid` tells."
        },
    )
    think = ThinkField(
        allow_none=True,
        metadata={
            "description": "true, false, or how much: `low`, `medium`, `high`, `max`; else as the model does"
        },
    )
    logprobs = StrictBool(metadata={"description": "Whether to tell how likely each token was"})
    top_logprobs = fields.Int(
        strict=True,
        validate=validate.Range(0, 20),
        metadata={"description": "How many other tokens to tell beside each"},
    )
    options = fields.Nested(
        OptionsSchema, metadata={"description": "Ollama's own options, such as `num_ctx`; for Ollama only"}
    )
    keep_alive = KeepAlive(
        may_be_zero=True,
        metadata={
            "description": "How long Ollama keeps the model in memory: seconds, or such as `10m`; 0 for not"
        },
    )
    truncate = StrictBool(
        metadata={
            "description": "false: fail when the messages do not fit the model's window, instead of leaving "
            "the oldest out; for Ollama only"
        }
    )

    @validates_schema
    def _has_something_to_answer(self, data: dict[str, Any], **_: Any) -> None:
        if "message" not in data and "messages" not in data:
            raise ValidationError("Message is required", "message")
        if "images" in data and "message" not in data:
            raise ValidationError("Images go with message; those of messages go into each.", "images")
        if data.get("top_logprobs") and not data.get("logprobs"):
            raise ValidationError("Needs logprobs to be true.", "top_logprobs")
        starts_with_system = data.get("messages", [{}])[0].get("role") == "system"
        if starts_with_system and data.get("system_prompt"):
            raise ValidationError("Give it here or as the first of messages, not both.", "system_prompt")

    stream = StrictBool(
        load_default=False,
        metadata={"description": "Answer as an event stream: `start`, `delta`, `done` or `error`"},
    )


class ChatRequestSchema(QuestionSchema, TargetSchema):
    """What is asked of one model."""

    conversation_id = fields.Str(
        allow_none=True,
        validate=validate.Length(1, 64),
        metadata={
            "description": "A kept conversation to go on with: what was said is sent along, and what is said "
            "is kept. `messages` are then the new ones only, such as the results of tools"
        },
    )
    fallback_provider = fields.Str(
        allow_none=True,
        validate=not_blank("Fallback provider"),
        metadata={"description": "Who answers when the provider cannot; else the settings', null for nobody"},
    )


class CompareRequestSchema(QuestionSchema):
    """What is asked of several models at once."""

    targets = fields.List(
        fields.Nested(TargetSchema),
        required=True,
        validate=validate.Length(2, 8),
        metadata={"description": "Who is asked: two to eight"},
    )

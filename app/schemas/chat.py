"""The requests of chats and comparisons."""

from __future__ import annotations

from typing import Any, TypedDict

from marshmallow import ValidationError, fields, validate, validates_schema

from app.schemas.fields import (
    Items,
    KeepAlive,
    RequestSchema,
    StrictBool,
    StrictFloat,
    TextsField,
    no_controls,
    not_blank,
)
from app.schemas.messages import MAX_IMAGES, ImageField, Message, MessageSchema, ToolSchema
from app.schemas.options import FormatField, OptionsSchema, ThinkField

MAX_MESSAGES = 1000


class ChatBody(TypedDict, total=False):
    """What :class:`ChatRequestSchema` loads.

    A conversation that does not fit the model's window sets ``dropped_messages``; no request has that field.
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
    """The provider and the model to ask."""

    provider = fields.Str(
        validate=not_blank("Provider"),
        metadata={"description": "A provider's id; default: `default_provider` of the settings"},
    )
    model = fields.Str(
        allow_none=True,
        validate=[not_blank("Model"), no_controls, validate.Length(max=300)],
        metadata={"description": "A model of the provider; default: the model in the provider's settings"},
    )


class QuestionSchema(RequestSchema):
    """The question: `message`, or `messages`, or both (then `message` comes last)."""

    message = fields.Str(validate=not_blank("Message"), metadata={"description": "The user's message"})
    messages = Items(
        fields.Nested(MessageSchema),
        validate=validate.Length(1, MAX_MESSAGES),
        metadata={"description": "The conversation so far"},
    )
    system_prompt = fields.Str(
        allow_none=True,
        metadata={
            "description": "Instructions to the model; default: the setting; an empty text for no prompt"
        },
    )
    temperature = StrictFloat(allow_none=True, validate=validate.Range(0, 2))
    top_p = StrictFloat(allow_none=True, validate=validate.Range(0, 1))
    stop = TextsField(
        allow_none=True,
        count=validate.Length(max=4, error="Four at most."),
        metadata={"description": "Up to four texts; the answer ends before the first of them"},
    )
    seed = fields.Int(strict=True, allow_none=True, validate=validate.Range(-(2**63), 2**63 - 1))
    max_tokens = fields.Int(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "The most tokens of the answer. Not sent to Ollama's /v1: `notice` says so"},
    )
    images = Items(
        ImageField(),
        validate=validate.Length(1, MAX_IMAGES),
        metadata={"description": "The images of `message`: base64 or data URIs of PNG, JPEG, WebP or GIF"},
    )
    tools = Items(
        fields.Nested(ToolSchema),
        validate=validate.Length(1, 128),
        metadata={"description": "Functions that the model may call; the calls come in `tool_calls`"},
    )
    format = FormatField(
        allow_none=True,
        metadata={
            "description": "`json`, or a JSON schema for the answer; `format_valid` tells if it is followed"
        },
    )
    think = ThinkField(
        allow_none=True,
        metadata={
            "description": "Whether the model thinks first: true, false, `low`, `medium`, `high` or `max`; "
            "default: the model decides"
        },
    )
    logprobs = StrictBool(metadata={"description": "Whether to return the log probability of each token"})
    top_logprobs = fields.Int(
        strict=True,
        validate=validate.Range(0, 20),
        metadata={"description": "The number of likely alternatives to return for each token"},
    )
    options = fields.Nested(
        OptionsSchema, metadata={"description": "Ollama's native options, such as `num_ctx`; for Ollama only"}
    )
    keep_alive = KeepAlive(
        may_be_zero=True,
        metadata={
            "description": "How long Ollama keeps the model in memory: seconds, or a duration such as `10m`; "
            "0 unloads it after the answer; negative for ever"
        },
    )
    truncate = StrictBool(
        metadata={
            "description": "false: fail when the messages do not fit the model's window, instead of dropping "
            "the oldest messages; for Ollama only"
        }
    )

    @validates_schema
    def _has_something_to_answer(self, data: dict[str, Any], **_: Any) -> None:
        if "message" not in data and "messages" not in data:
            raise ValidationError("Message is required", "message")
        if "images" in data and "message" not in data:
            raise ValidationError(
                "Needs `message`; put the images of `messages` into each of them.", "images"
            )
        if data.get("top_logprobs") and not data.get("logprobs"):
            raise ValidationError("Needs logprobs to be true.", "top_logprobs")
        starts_with_system = data.get("messages", [{}])[0].get("role") == "system"
        if starts_with_system and data.get("system_prompt"):
            raise ValidationError("Give it here or as the first of `messages`, not both.", "system_prompt")

    stream = StrictBool(
        load_default=False,
        metadata={"description": "Answer with an event stream: `start`, `delta`, then `done` or `error`"},
    )


class ChatRequestSchema(QuestionSchema, TargetSchema):
    """A question to one model."""

    conversation_id = fields.Str(
        allow_none=True,
        validate=validate.Length(1, 64),
        metadata={
            "description": "A stored conversation to continue: its messages are sent too, and the new "
            "messages are stored in it. `messages` then has only new messages, such as results of tools"
        },
    )
    fallback_provider = fields.Str(
        allow_none=True,
        validate=not_blank("Fallback provider"),
        metadata={
            "description": "The provider to ask when the first one fails; default: the setting; null for none"
        },
    )


class CompareRequestSchema(QuestionSchema):
    """One question to several models."""

    targets = Items(
        fields.Nested(TargetSchema),
        required=True,
        validate=validate.Length(2, 8),
        metadata={"description": "The providers and models to ask, two to eight"},
    )

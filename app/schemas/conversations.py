"""Conversations: stored chats."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

from marshmallow import ValidationError, fields, post_load, pre_load, validate

from app.schemas.base import UpstreamSchema
from app.schemas.fields import Items, RequestSchema, UtcDateTime, no_controls, not_blank
from app.schemas.messages import KeptMessageSchema

ROLES = ("user", "assistant", "system", "tool")
STATUSES = ("complete", "pending", "failed", "cut", "stopped")

MAX_IMPORTED = 100_000  # messages
_MAX_DEPTH = 32  # of nested lists and objects


def _check_time(value: datetime) -> None:
    if not 1970 <= value.year <= 9998:
        raise ValidationError("Give a time from 1970 on.")


def _check_json(value: dict[str, Any]) -> None:
    """Refuse numbers that JSON does not have, and values that are nested too deeply."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            raise ValidationError("Numbers must be finite.")
        inner = [item.values() if isinstance(item, dict) else item for item in level if _is_nested(item)]
        level = [item for items in inner for item in items]
        if not level:
            return
    raise ValidationError(f"Nested more than {_MAX_DEPTH} times.")


def _is_nested(item: Any) -> bool:
    return isinstance(item, dict | list)


def _json_object(**kwargs: Any) -> fields.Dict:
    return fields.Dict(keys=fields.Str(), validate=_check_json, **kwargs)


class ConversationFieldsSchema(RequestSchema):
    """The fields of a conversation that a user can set."""

    title = fields.Str(
        validate=[not_blank("Title"), validate.Length(max=200)],
        metadata={"description": "Default: made from the first message"},
    )
    system_prompt = fields.Str(
        allow_none=True,
        validate=validate.Length(max=100_000),
        metadata={"description": "Default: the setting; an empty text for no prompt"},
    )
    provider = fields.Str(
        allow_none=True,
        validate=[not_blank("Provider"), validate.Length(max=80)],
        metadata={"description": "The provider that answers; default: `default_provider` of the settings"},
    )
    model = fields.Str(
        allow_none=True,
        validate=[not_blank("Model"), no_controls, validate.Length(max=300)],
        metadata={"description": "The model that answers; default: the model in the provider's settings"},
    )


class ConversationQuerySchema(RequestSchema):
    """Which conversations to list."""

    limit = fields.Int(load_default=50, validate=validate.Range(1, 200))
    offset = fields.Int(load_default=0, validate=validate.Range(0, 2**31 - 1))
    q = fields.Str(
        load_default="",
        validate=validate.Length(max=200),
        attribute="query",
        metadata={"description": 'Words that must be in a message or in the title; "a phrase" in quotes'},
    )


class MessageQuerySchema(RequestSchema):
    """Which messages to return."""

    limit = fields.Int(load_default=100, validate=validate.Range(1, 1000))
    before = fields.Int(
        load_default=None,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "Return the newest messages before the message with this `seq`"},
    )


class ExportQuerySchema(RequestSchema):
    """How to export."""

    format = fields.Str(load_default="json", validate=validate.OneOf(["json", "markdown"]))


class SnippetPartSchema(UpstreamSchema):
    """A part of a snippet."""

    text = fields.Str()
    match = fields.Bool(metadata={"description": "Whether the part is one of the searched words"})


class MatchSchema(UpstreamSchema):
    """Where a search found its words."""

    seq = fields.Int(
        allow_none=True, metadata={"description": "The `seq` of the message; null for the title"}
    )
    snippet = fields.List(fields.Nested(SnippetPartSchema))


class ConversationSchema(UpstreamSchema):
    """A conversation without its messages."""

    id = fields.Str()
    title = fields.Str(metadata={"description": "Empty until the first message, unless it was set"})
    system_prompt = fields.Str(allow_none=True)
    provider = fields.Str(allow_none=True)
    model = fields.Str(allow_none=True)
    message_count = fields.Int()
    created_at = UtcDateTime()
    updated_at = UtcDateTime(metadata={"description": "The time of the last message"})
    match = fields.Nested(MatchSchema, metadata={"description": "Only for a search with `q`"})


class ConversationListSchema(UpstreamSchema):
    """One page of conversations."""

    conversations = fields.List(fields.Nested(ConversationSchema))
    total = fields.Int(metadata={"description": "The number of conversations on all pages"})


class ConversationMessageSchema(UpstreamSchema):
    """A message of a conversation."""

    seq = fields.Int(metadata={"description": "The number of the message, from 1, without gaps"})
    role = fields.Str(metadata={"description": "`user`, `assistant`, `system` or `tool`"})
    content = fields.Str()
    data = fields.Dict(
        keys=fields.Str(), metadata={"description": "`images`, `thinking`, `tool_calls`, `tool_call_id` ..."}
    )
    status = fields.Str(
        metadata={
            "description": "`complete`, `pending` (the answer is running), `failed`, `cut` (the answer broke "
            "off) or `stopped`"
        }
    )
    error = fields.Dict(
        keys=fields.Str(), allow_none=True, metadata={"description": "The error of a failed answer"}
    )
    provider = fields.Str(allow_none=True)
    model = fields.Str(allow_none=True)
    usage = fields.Dict(keys=fields.Str(), allow_none=True)
    created_at = UtcDateTime()


class WholeConversationSchema(ConversationSchema):
    """A conversation with some of its messages, in order."""

    messages = fields.List(fields.Nested(ConversationMessageSchema))
    has_more = fields.Bool(metadata={"description": "Whether the conversation has messages before these"})


_KEPT = KeptMessageSchema()


class ExportedMessageSchema(RequestSchema):
    """An exported message."""

    role = fields.Str(required=True, validate=validate.OneOf(ROLES))
    content = fields.Str(required=True)
    data = _json_object(load_default=dict)
    status = fields.Str(load_default="complete", validate=validate.OneOf(STATUSES))
    error = _json_object(load_default=None)
    provider = fields.Str(load_default=None, validate=[no_controls, validate.Length(max=80)])
    model = fields.Str(load_default=None, validate=[no_controls, validate.Length(max=300)])
    usage = _json_object(load_default=None)
    created_at = UtcDateTime(load_default=lambda: datetime.now(timezone.utc), validate=_check_time)

    @post_load
    def _can_be_sent(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        try:
            turn = _KEPT.load({**data["data"], "role": data["role"], "content": data["content"]})
        except ValidationError as exc:
            faults = dict(exc.messages_dict)
            own = {"content": faults.pop("content")} if "content" in faults else {}
            raise ValidationError({**own, **({"data": faults} if faults else {})}) from exc
        kept = {name: value for name, value in turn.items() if name not in {"role", "content"}}
        return {**data, "data": kept}


class ExportedConversationSchema(ConversationFieldsSchema):
    """An exported conversation."""

    version = fields.Int(required=True, strict=True, validate=validate.Equal(1))
    title = fields.Str(load_default="", validate=validate.Length(max=200))
    created_at = UtcDateTime(load_default=None, validate=_check_time)
    updated_at = UtcDateTime(load_default=None, validate=_check_time)
    messages = Items(fields.Nested(ExportedMessageSchema), required=True)


class ImportSchema(RequestSchema):
    """An exported conversation, a list of them, or an object with that list as `conversations`."""

    conversations = Items(
        fields.Nested(ExportedConversationSchema), required=True, validate=validate.Length(1, 10_000)
    )

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Return the loaded *data*, in any of its three forms."""
        if isinstance(data, dict) and "messages" in data:
            data = [data]
        return super().load({"conversations": data} if isinstance(data, list) else data, **kwargs)

    @pre_load
    def _not_too_many(self, data: Any, **_: Any) -> Any:
        if _count(data) > MAX_IMPORTED:
            raise ValidationError(f"At most {MAX_IMPORTED:,} messages at once.", "conversations")
        return data


def _count(data: Any) -> int:
    """Return the number of messages in an import that is not validated yet."""
    conversations = data.get("conversations") if isinstance(data, dict) else None
    conversations = conversations if isinstance(conversations, list) else []
    found = [one.get("messages") for one in conversations if isinstance(one, dict)]
    return sum(len(messages) for messages in found if isinstance(messages, list))


class ImportResultSchema(UpstreamSchema):
    """The conversations that were imported, with their new ids."""

    conversations = fields.List(fields.Nested(ConversationSchema))
    total = fields.Int()

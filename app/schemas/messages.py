"""The messages of a conversation: their texts, images and tool calls."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, TypedDict

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.schemas.fields import Items, RequestSchema, not_blank

MAX_IMAGES = 20


class CalledFunction(TypedDict):
    """What :class:`CalledFunctionSchema` loads; the arguments are a text if a model wrote no object."""

    name: str
    arguments: dict[str, Any] | str


class ToolCall(TypedDict, total=False):
    """What :class:`ToolCallSchema` loads."""

    id: str
    type: str
    function: CalledFunction


class Message(TypedDict, total=False):
    """What :class:`MessageSchema` loads; images are data URIs."""

    role: str
    content: str
    images: list[str]
    thinking: str | None
    tool_calls: list[ToolCall]
    tool_call_id: str
    tool_name: str


_DATA_URI = re.compile(r"data:image/(?:png|jpeg|jpg|webp|gif);base64,", re.IGNORECASE)
_PART = 1_000_000  # characters; a multiple of 4
_NO_BASE64 = "Not valid base64 of an image."
_MARKS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


class ImageField(fields.Field[str]):
    """An image as base64 or as a data URI; loaded as a data URI with the type that the image's bytes show."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("Give the image as base64, or as a data URI.")
        if value.startswith(("http://", "https://")):
            raise ValidationError("URLs of images are not fetched: give the image itself as base64.")
        prefix = _DATA_URI.match(value)
        encoded = value[prefix.end() :] if prefix else value
        start = _start_of(encoded)
        kind = next((kind for mark, kind in _MARKS.items() if start.startswith(mark)), None)
        if kind is None or (kind == "webp" and start[8:12] != b"WEBP"):
            raise ValidationError("Not a supported image: give PNG, JPEG, WebP or GIF.")
        return f"data:image/{kind};base64,{encoded}"


def _start_of(encoded: str) -> bytes:
    """Return the first bytes of an image; all of its base64 is checked."""
    # Part by part: the check of a large image would keep other threads waiting.
    parts = (encoded[at : at + _PART] for at in range(0, len(encoded), _PART))
    try:
        starts = [base64.b64decode(part, validate=True)[:16] for part in parts]
    except ValueError as exc:  # binascii.Error is one
        raise ValidationError(_NO_BASE64) from exc
    if "=" in encoded[:-2]:  # it is the end, also if a part ends with it
        raise ValidationError(_NO_BASE64)
    return starts[0] if starts else b""


class ArgumentsField(fields.Field[Any]):
    """The arguments of a tool call: an object, or the JSON text of one."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            parsed = json.loads(value, parse_constant=_refuse) if isinstance(value, str) else value
        except (ValueError, RecursionError) as exc:
            raise ValidationError("Not the JSON text of an object.") from exc
        if not isinstance(parsed, dict):
            raise ValidationError("Give an object, or the JSON text of one.")
        return parsed


class CalledFunctionSchema(RequestSchema):
    """The function that a model called, and its arguments."""

    name = fields.Str(required=True, validate=not_blank("Name"))
    arguments = ArgumentsField(load_default=dict)
    index = fields.Int(strict=True)


class ToolCallSchema(RequestSchema):
    """A tool call of a model, from an earlier answer."""

    id = fields.Str(validate=validate.Length(1, 200))
    type = fields.Str(validate=validate.OneOf(["function"]))
    function = fields.Nested(CalledFunctionSchema, required=True)


class MessageSchema(RequestSchema):
    """One message of a conversation."""

    role = fields.Str(required=True, validate=validate.OneOf(["system", "user", "assistant", "tool"]))
    content = fields.Str(allow_none=True, load_default="", metadata={"description": "The text"})
    images = Items(
        ImageField(),
        validate=validate.Length(1, MAX_IMAGES),
        metadata={"description": "For the role `user`: base64 or data URIs of PNG, JPEG, WebP or GIF"},
    )
    thinking = fields.Str(
        allow_none=True,
        metadata={"description": "For the role `assistant`: the `thinking` of an earlier answer"},
    )
    tool_calls = Items(
        fields.Nested(ToolCallSchema),
        validate=validate.Length(1, 100),
        metadata={"description": "For the role `assistant`: the `tool_calls` of an earlier answer"},
    )
    tool_call_id = fields.Str(
        validate=validate.Length(1, 200),
        metadata={"description": "For the role `tool`: the `id` of the tool call that this answers"},
    )
    tool_name = fields.Str(
        validate=validate.Length(1, 200), metadata={"description": "For the role `tool`: the function's name"}
    )

    @validates_schema
    def _fits_its_role(self, data: dict[str, Any], **_: Any) -> None:
        role = data.get("role")
        owners = {"images": "user", "tool_calls": "assistant", "thinking": "assistant"}
        owners |= {"tool_call_id": "tool", "tool_name": "tool"}
        for name, owner in owners.items():
            if data.get(name) and role != owner:
                raise ValidationError(f"Belongs to the role '{owner}' only.", name)
        if not data.get("content") and role == "system":
            raise ValidationError("Content is required", "content")
        if not data.get("content") and role == "user" and not data.get("images"):
            raise ValidationError("Content is required", "content")
        if role == "tool" and not (data.get("tool_call_id") or data.get("tool_name")):
            raise ValidationError("Give the id of the tool call that this answers.", "tool_call_id")

    @post_load
    def _content_is_a_text(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "content": data["content"] or ""}


class KeptArgumentsField(fields.Field[Any]):
    """The arguments of a stored tool call: an object, or the text that a model wrote instead."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, Any] | str:
        if not isinstance(value, dict | str):
            raise ValidationError("Give an object or a text.")
        return value


class KeptFunctionSchema(RequestSchema):
    """The function of a stored tool call; its arguments are not checked, as a model may write anything."""

    name = fields.Str(required=True)
    arguments = KeptArgumentsField(load_default=dict)
    index = fields.Int(strict=True)


class KeptCallSchema(RequestSchema):
    """A stored tool call, as the model wrote it."""

    id = fields.Str()
    type = fields.Str(validate=validate.OneOf(["function"]))
    function = fields.Nested(KeptFunctionSchema, required=True)


class KeptMessageSchema(MessageSchema):
    """A message of a stored conversation, which a chat can send again."""

    tool_calls = Items(fields.Nested(KeptCallSchema))
    finish_reason = fields.Str()


class FunctionSchema(RequestSchema):
    """A function that a model may call."""

    name = fields.Str(required=True, validate=validate.Regexp(r"^[A-Za-z0-9_.-]{1,64}\Z"))
    description = fields.Str()
    parameters = fields.Dict(
        keys=fields.Str(), metadata={"description": "Its arguments: a JSON schema of the type `object`"}
    )
    strict = fields.Bool(metadata={"description": "Passed on to the provider"})


class ToolSchema(RequestSchema):
    """A tool that a model may use."""

    type = fields.Str(load_default="function", validate=validate.OneOf(["function"]))
    function = fields.Nested(FunctionSchema, required=True)

"""Translate requests of ``POST /api/chat`` and ``/api/generate`` into requests to the runner's ``/v1``."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from app.engine import gojson
from app.engine.gojson import BadBodyError, Field
from app.engine.models import details
from app.engine.routes.wire import ApiError

if TYPE_CHECKING:
    from app.engine.gojson import Object
    from app.engine.models.store import Model, ModelStore

# By Ollama's option: the runner's name for it, and the type that Ollama's error names.
_OPTIONS = {
    "num_predict": ("max_tokens", "integer"),
    "num_keep": ("n_keep", "integer"),
    "seed": ("seed", "integer"),
    "top_k": ("top_k", "integer"),
    "repeat_last_n": ("repeat_last_n", "integer"),
    "temperature": ("temperature", "float32"),
    "top_p": ("top_p", "float32"),
    "min_p": ("min_p", "float32"),
    "typical_p": ("typical_p", "float32"),
    "repeat_penalty": ("repeat_penalty", "float32"),
    "presence_penalty": ("presence_penalty", "float32"),
    "frequency_penalty": ("frequency_penalty", "float32"),
    "stop": ("stop", "array"),
    "num_ctx": ("", "integer"),  # not sent: the window is set when the model is loaded
}
_DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
_MESSAGE = {
    **{key: Field("string") for key in ("role", "content", "thinking", "tool_name", "tool_call_id")},
    "images": Field("array", "[]api.ImageData"),
    "tool_calls": Field("array", "[]api.ToolCall"),
}
_CALL = {"id": Field("string"), "function": Field("object", "api.ToolCallFunction")}
_TOOL = {"type": Field("string"), "function": Field("object", "api.ToolFunction")}
_FUNCTION = {
    "name": Field("string"),
    "description": Field("string"),
    "parameters": Field("object", "api.ToolFunctionParameters"),
}
_INT64 = 1 << 63
_IMAGE_MARKS = {b"\xff\xd8": "jpeg", b"RIFF": "webp"}


def check_options(options: Object) -> None:
    """Check the types of the options.

    :raises ApiError: 500, as Ollama does
    """
    for key, value in options.items():
        _, kind = _OPTIONS.get(key, ("", ""))
        if not kind or _fits(value, kind):
            continue
        of_type = "an array of strings" if kind == "array" and isinstance(value, list) else f"type {kind}"
        raise ApiError(500, f'option "{key}" must be of {of_type}')


def _fits(value: Any, kind: str) -> bool:
    if kind == "array":
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return kind != "integer" or -_INT64 <= value < _INT64


def usable(parameters: Object) -> Object:
    """Return the *parameters* of a model without those of a wrong type, which a registry may have sent."""
    return {
        key: value
        for key, value in parameters.items()
        if key not in _OPTIONS or _fits(value, _OPTIONS[key][1])
    }


def check_messages(messages: list[Any]) -> None:
    """Check that the fields of the messages have the types of Ollama's Go structs.

    :raises ApiError: 400, with Go's message
    """
    for message in messages:
        _check(message, "ChatRequest.messages", "api.Message", "Message.messages", _MESSAGE)
        for image in message.get("images") or []:
            if not isinstance(image, str):
                raise _wrong_type(image, "Message.messages.images", "api.ImageData")
        for call in message.get("tool_calls") or []:
            _check(call, "Message.messages.tool_calls", "api.ToolCall", "ToolCall", _CALL)
            check_object(call.get("function") or {}, "ToolCall.function", {"name": Field("string")})


def check_tools(tools: list[Any]) -> None:
    """Check that the fields of the tools have the types of Ollama's Go structs.

    :raises ApiError: 400, with Go's message
    """
    for tool in tools:
        _check(tool, "ChatRequest.tools", "api.Tool", "Tool.tools", _TOOL)
        check_object(tool.get("function") or {}, "ToolFunction.tools.function", _FUNCTION)


def _check(value: Any, where: str, kind: str, struct: str, fields: dict[str, Field]) -> None:
    if not isinstance(value, dict):
        raise _wrong_type(value, where, kind)
    check_object(value, struct, fields)


def check_object(value: Object, struct: str, fields: dict[str, Field]) -> None:
    """Check an object inside a body, as :func:`app.engine.gojson.check` does.

    :raises ApiError: 400, with Go's message
    """
    try:
        gojson.check(value, struct, fields)
    except BadBodyError as exc:
        raise ApiError(400, str(exc)) from exc


def _wrong_type(value: Any, where: str, kind: str) -> ApiError:
    found = gojson.kind_of(value)
    return ApiError(400, f"json: cannot unmarshal {found} into Go struct field {where} of type {kind}")


def check_thinking(value: Any) -> None:
    """Check ``think``.

    :raises ApiError: 400, with Ollama's message
    """
    if not isinstance(value, (bool, str, type(None))):
        raise ApiError(400, 'think must be a boolean or string ("high", "medium", "low", true, or false)')


def sampling(parameters: Object, options: Object) -> Object:
    """Return the sampling fields for the runner: *options* go before *parameters*, then Ollama's defaults."""
    found = translated(_DEFAULTS | usable(parameters) | options, tuple(_OPTIONS))
    if found.get("max_tokens", 0) <= 0:  # -1: no limit
        found.pop("max_tokens", None)
    return found


def translated(options: Object, keys: tuple[str, ...]) -> Object:
    """Return the *options* with these *keys*, by the runner's names."""
    words = {key: _OPTIONS[key][0] for key in keys}
    return {word: options[key] for key, word in words.items() if word and key in options}


def response_format(value: Any) -> Object:
    """Translate ``format``.

    :raises ApiError: 500, with Ollama's message
    """
    if value in (None, ""):
        return {}
    if value == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(value, dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}
    quoted = json.dumps(json.dumps(value))
    expected = 'expected "json" or a valid JSON Schema object'
    raise ApiError(500, f"invalid format: {quoted}; {expected}")


def with_system(store: ModelStore, model: Model, messages: list[Any]) -> list[Any]:
    """Put the model's own messages and system prompt before *messages*, as Ollama does."""
    messages = [*details.messages_of(store, model.manifest), *messages]
    system = store.read_text(model.manifest.layer("system"))
    if system and messages and messages[0].get("role") != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages


def openai_messages(messages: list[Any]) -> list[Object]:
    """Translate native messages: images become parts, tool arguments become strings."""
    return [_openai_message(message) for message in messages]


def _openai_message(message: Object) -> Object:
    translated: Object = {
        "role": message.get("role") or "user",
        "content": _content(str(message.get("content") or ""), message.get("images") or []),
    }
    if calls := message.get("tool_calls"):
        translated["tool_calls"] = [_openai_call(call) for call in calls]
    if call_id := message.get("tool_call_id"):
        translated["tool_call_id"] = call_id
    if thinking := message.get("thinking"):
        translated["reasoning_content"] = thinking
    return translated


def _content(text: str, images: list[Any]) -> Any:
    if not images:
        return text
    parts: list[Object] = [{"type": "text", "text": text}]
    for image in images:
        kind = _image_kind(str(image))
        url = f"data:image/{kind};base64,{image}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _image_kind(encoded: str) -> str:
    try:
        start = base64.b64decode(encoded[:16], validate=True)
    except ValueError as exc:  # also for a text that is not ASCII
        raise ApiError(400, "illegal base64 data at input byte 0") from exc
    return next((kind for mark, kind in _IMAGE_MARKS.items() if start.startswith(mark)), "png")


def _openai_call(call: Object) -> Object:
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):  # Ollama's decoder accepts only an object
        raise ApiError(400, "Value looks like object, but can't find closing '}' symbol")
    return {
        "id": call.get("id", ""),
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": json.dumps(arguments)},
    }


def native_call(index: int, call: Object) -> Object:
    """Translate a tool call of the runner: its arguments, a JSON text, become an object."""
    function = call.get("function") or {}
    try:
        arguments = gojson.loads((function.get("arguments") or "{}").encode("utf-8", "replace"))
    except BadBodyError:
        arguments = {}
    return {
        "id": call.get("id", ""),
        "function": {"index": index, "name": function.get("name", ""), "arguments": arguments},
    }

"""Check ``/v1`` requests as Ollama does, and translate the fields that Ollama uses for the runner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from app.engine import gojson
from app.engine.gojson import BadBodyError, Field
from app.engine.models import details
from app.engine.routes import conversation
from app.engine.routes.chat import check_abilities

if TYPE_CHECKING:
    from app.engine.gojson import Object
    from app.engine.models.store import Model
    from app.engine.routes.wire import Services

_NUMBER = Field("float64")
_SAMPLING = {
    "model": Field("string"),
    "stream": Field("bool"),
    "max_tokens": Field("int"),
    "seed": Field("int"),
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "stream_options": Field("object", "openai.StreamOptions"),
}
_CHAT = _SAMPLING | {
    "messages": Field("array", "[]openai.Message"),
    "tools": Field("array", "[]api.Tool"),
    "reasoning_effort": Field("string", "*string"),
    "response_format": Field("object", "openai.ResponseFormat"),
    "logprobs": Field("bool", "*bool"),
    "top_logprobs": Field("int"),
}
_COMPLETION = _SAMPLING | {"prompt": Field("string"), "suffix": Field("string")}
_EMBEDDINGS = {
    "model": Field("string"),
    "dimensions": Field("int"),
    "encoding_format": Field("string"),
}
_KEPT = ("seed", "frequency_penalty", "presence_penalty", "stream", "stream_options")
_MODEL_OPTIONS = ("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "num_keep")
# By the type of a part, which is also the key of its content: the types of the content.
_PART_TYPES: dict[str, tuple[type, ...]] = {"text": (str,), "image_url": (str, dict), "input_audio": (dict,)}
_MESSAGE = {
    **{key: Field("string") for key in ("role", "reasoning", "name", "tool_call_id")},
    "tool_calls": Field("array", "[]openai.ToolCall"),
}


def check_chat(raw: bytes) -> Object:
    """Decode the body of a chat.

    :raises BadBodyError: with Ollama's message, for a 400
    """
    body = _decode(raw, "ChatCompletionRequest", _CHAT)
    if not body.get("messages"):
        raise BadBodyError("[] is too short - 'messages'")
    for message in body["messages"]:
        _check_message(message)
    return body


def _check_message(message: Any) -> None:
    if not isinstance(message, dict):
        raise BadBodyError("json: cannot unmarshal into Go value of type openai.Message")
    gojson.check(message, "Message.messages", _MESSAGE)
    content = message.get("content")
    if isinstance(content, bool) or not isinstance(content, (str, list, type(None))):
        kind = {bool: "bool", dict: "map[string]interface {}"}.get(type(content), "float64")
        raise BadBodyError(f"invalid message content type: {kind}")
    for part in content if isinstance(content, list) else []:
        name = part.get("type") if isinstance(part, dict) else None
        if name not in _PART_TYPES or not isinstance(part.get(name), _PART_TYPES[name]):
            raise BadBodyError("invalid message format")
    for call in message.get("tool_calls") or []:
        _check_arguments(call)


def _check_arguments(call: Any) -> None:
    try:
        arguments = json.loads(call["function"]["arguments"])
    except (ValueError, KeyError, TypeError) as exc:
        raise BadBodyError("invalid tool call arguments") from exc
    if not isinstance(arguments, dict):
        raise BadBodyError("invalid tool call arguments")


def check_completion(raw: bytes) -> Object:
    """Decode the body of a completion; raises as `check_chat`."""
    return _decode(raw, "CompletionRequest", _COMPLETION)


def _decode(raw: bytes, struct: str, fields: dict[str, Field]) -> Object:
    body = gojson.decode(raw, struct, fields)
    options = body.get("stream_options", {})
    gojson.check(options, "StreamOptions.stream_options", {"include_usage": Field("bool")})
    return body


def check_embeddings(raw: bytes) -> Object:
    """Decode the body of a request for embeddings; raises as `check_chat`."""
    body = gojson.decode(raw, "EmbedRequest", _EMBEDDINGS)
    if not body.get("input"):
        raise BadBodyError("invalid input")
    return body


def chat(services: Services, model: Model, body: Object) -> Object:
    """Build the runner's body for a chat, from the fields that Ollama uses."""
    effort = body.get("reasoning_effort", "none")
    asked = body | {"think": effort != "none"}
    conversation.check_tools(body.get("tools") or [])
    check_abilities(services.store, model, asked)
    messages = conversation.with_system(services.store, model, body["messages"])
    sent = _sampling(services, model, body) | {"messages": messages}
    for key in ("tools", "logprobs", "top_logprobs"):
        if body.get(key):
            sent[key] = body[key]
    sent |= _response_format(body.get("response_format") or {})
    if "reasoning_effort" in body:
        sent["chat_template_kwargs"] = {"enable_thinking": asked["think"]}
    return sent


def _response_format(form: Object) -> Object:
    """Translate ``response_format``; like Ollama, ignore one that has no known type or no schema.

    :raises ApiError: 500, with Ollama's message for a schema that is none
    """
    if form.get("type") == "json_object":
        return conversation.response_format("json")
    wrapped = form.get("json_schema")
    if form.get("type") != "json_schema" or not isinstance(wrapped, dict):
        return {}
    return conversation.response_format(wrapped.get("schema"))


def completion(services: Services, model: Model, body: Object) -> Object:
    """Build the runner's body for a completion."""
    return _sampling(services, model, body) | {"prompt": body.get("prompt", "")}


def _sampling(services: Services, model: Model, body: Object) -> Object:
    """Return the sampling fields; temperature and top_p are 1.0 by default, as in Ollama."""
    own = conversation.usable(details.parameters_of(services.store, model.manifest))
    sent: Object = conversation.translated(own, _MODEL_OPTIONS)
    sent |= {"temperature": body.get("temperature", 1.0), "top_p": body.get("top_p", 1.0)}
    sent |= {key: body[key] for key in _KEPT if key in body}
    stops = body.get("stop")
    stops = [stops] if isinstance(stops, str) else stops
    if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
        sent["stop"] = stops
    elif own.get("stop"):
        sent["stop"] = own["stop"]
    if body.get("max_tokens", 0) > 0:
        sent["max_tokens"] = body["max_tokens"]
    return sent

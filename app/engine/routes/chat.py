"""``POST /api/chat`` and ``/api/generate``; without messages they only load or unload the model."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from app.engine import gojson
from app.engine.gojson import BadBodyError, Field
from app.engine.models import details
from app.engine.routes import conversation, wire
from app.engine.routes.answers import Metrics, native_parts, upstream_message
from app.engine.routes.wire import ApiError
from app.engine.runners.relay import DIED, post
from app.engine.runners.scheduler import ClientLeftError, RunnerDiedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.engine.gojson import Object
    from app.engine.models.store import Model, ModelStore
    from app.engine.routes.wire import Services
    from app.engine.runners.relay import Answer

_SHARED = {
    "model": Field("string"),
    "stream": Field("bool", "*bool"),
    "options": Field("object", "map[string]interface {}"),
    "truncate": Field("bool", "*bool"),
    "shift": Field("bool", "*bool"),
    "logprobs": Field("bool"),
    "top_logprobs": Field("int"),
}
_CHAT = _SHARED | {
    "messages": Field("array", "[]api.Message"),
    "tools": Field("array", "api.Tools"),
}
_GENERATE = _SHARED | {
    "prompt": Field("string"),
    "system": Field("string"),
    "suffix": Field("string"),
    "template": Field("string"),
    "raw": Field("bool"),
    "context": Field("array", "[]int"),
    "images": Field("array", "[]api.ImageData"),
}


_MOST_LOGPROBS = 20
_LARGEST_WINDOW = (1 << 31) - 1  # a larger one does not fit llama.cpp's type

# Ollama passes its runner's error on as a text (``chat_native_images_unsupported``).
_NO_IMAGES = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not support '
    'multimodal requests.","type":"invalid_request_error"}}'
)


def chat_routes(services: Services) -> Blueprint:
    """Build the two routes."""
    blp = Blueprint("chat", __name__)

    @blp.post("/api/chat")
    def chat() -> Response:
        body = wire.read_body("ChatRequest", _CHAT)
        if not body.get("model"):
            raise ApiError(400, "model is required")
        messages = body.get("messages") or []
        conversation.check_messages(messages)
        conversation.check_tools(body.get("tools") or [])
        return _reply(services, body, messages, _message)

    @blp.post("/api/generate")
    def generate() -> Response:
        body = wire.read_body("GenerateRequest", _GENERATE)
        messages = []
        if prompt := body.get("prompt"):
            if system := body.get("system"):
                messages.append({"role": "system", "content": system})
            user = {"role": "user", "content": prompt, "images": body.get("images")}
            messages.append(user)
            conversation.check_messages(messages)
        return _reply(services, body, messages, _response)

    return blp


def _message(part: Object) -> Object:
    return {"message": {"role": "assistant"} | part}


def _response(part: Object) -> Object:
    thinking = {"thinking": part["thinking"]} if part.get("thinking") else {}
    return {"response": part["content"]} | thinking


def _reply(services: Services, body: Object, messages: list[Any], shape: Any) -> Response:
    """Answer, load or unload, as *body* asks; *shape* turns a part of the answer into the route's fields."""
    keep_alive = keep_alive_of(body)
    conversation.check_thinking(body.get("think"))
    if not 0 <= (body.get("top_logprobs") or 0) <= _MOST_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {_MOST_LOGPROBS}")
    model = wire.find_model(services.store, body.get("model", ""))
    stamp = {"model": body["model"], "created_at": gojson.now()}
    idle = {**shape({"content": ""}), "done": True}
    if not messages and keep_alive == 0:
        services.scheduler.unload(model)
        return wire.json_response(stamp | idle | {"done_reason": "unload"})
    options = body.get("options") or {}
    conversation.check_options(options)
    with missing_weights(body["model"]):
        check_abilities(services.store, model, body)
    if not messages:
        with missing_weights(body["model"]), lease(services, model, keep_alive, options):
            pass
        done = {"created_at": gojson.now(), "done_reason": "load"}
        return wire.json_response(stamp | idle | done)
    request = _runner_body(services, model, messages, body)
    lines = _answer(services, model, keep_alive, options, request)
    shaped = _shaped(lines, body["model"], shape)
    if body.get("stream", True):
        return _stream(shaped)
    return wire.json_response(_joined(list(shaped), shape))


def keep_alive_of(body: Object) -> float | None:
    """Return ``keep_alive`` in seconds; None when *body* has none.

    :raises ApiError: 400, with Go's message
    """
    if "keep_alive" not in body:
        return None
    try:
        return gojson.duration(body["keep_alive"])
    except BadBodyError as exc:
        raise ApiError(400, str(exc)) from exc


@contextmanager
def missing_weights(typed: str) -> Iterator[None]:
    """Turn a FileNotFoundError of the weights into Ollama's answer (``chat_native_blob_missing``).

    :raises ApiError: 404
    """
    try:
        yield
    except FileNotFoundError as exc:
        raise ApiError(404, f'model "{typed}" not found, try pulling it first') from exc


def check_abilities(store: ModelStore, model: Model, body: Object) -> None:
    """Check that the model has the capabilities that *body* needs, as Ollama does.

    :raises ApiError: 400, when it lacks one
    """
    try:
        abilities = details.capabilities(store, model.manifest)
    except ValueError:  # the weights are damaged: loading the model raises a better error
        return
    full = model.name.full
    if body.get("tools") and "tools" not in abilities:
        raise ApiError(400, f"{full} does not support tools")
    if body.get("suffix") and "insert" not in abilities:
        raise ApiError(400, f"{full} does not support insert")
    if body.get("think") and "thinking" not in abilities:
        raise ApiError(400, f'"{body["model"]}" does not support thinking')
    if "vision" not in abilities and _has_images(body):
        raise ApiError(400, _NO_IMAGES)
    if "embedding" in abilities:
        raise ApiError(400, f'"{body["model"]}" does not support chat')


def _has_images(body: Object) -> bool:
    """Tell whether a native body, or a message of ``/v1``, has images."""
    messages = [message for message in body.get("messages") or [] if isinstance(message, dict)]
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return bool(
        body.get("images")
        or any(message.get("images") for message in messages)
        or any(part.get("type") == "image_url" for part in parts)
    )


def lease(services: Services, model: Model, keep_alive: float | None, options: Object) -> Any:
    """Lease *model*, with the window of *options*, until the block ends or the client disconnects."""
    num_ctx = options.get("num_ctx")
    return services.scheduler.lease(
        model,
        keep_alive=keep_alive,
        num_ctx=min(int(num_ctx), _LARGEST_WINDOW) if num_ctx else None,
        gone=wire.client_gone(),
    )


def _runner_body(services: Services, model: Model, messages: list[Any], body: Object) -> Object:
    store = services.store
    parameters = details.parameters_of(store, model.manifest)
    prepared = conversation.openai_messages(conversation.with_system(store, model, messages))
    request = {
        "messages": prepared,
        "stream": True,
        "stream_options": {"include_usage": True},
        **conversation.sampling(parameters, body.get("options") or {}),
        **conversation.response_format(body.get("format")),
    }
    if body.get("tools"):
        request["tools"] = body["tools"]
    if body.get("think") is not None:
        request["chat_template_kwargs"] = {"enable_thinking": bool(body["think"])}
    if body.get("logprobs"):
        request |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return request


def _answer(
    services: Services, model: Model, keep_alive: float | None, options: Object, request: Object
) -> Iterator[Object]:
    """Send *request* to the model's runner; yield its answer as :func:`native_parts` does."""
    metrics, gone = Metrics(), wire.client_gone()
    leased = lease(services, model, keep_alive, options)
    with missing_weights(str(model.name)), leased as loaded:
        metrics.load_duration = time.perf_counter_ns() - metrics.started
        path = "/v1/chat/completions"
        with post(loaded.runner, path, request, services.departures, gone) as answer:
            _check(answer)
            yield from native_parts(answer.parts(), metrics)


def _check(answer: Answer) -> None:
    """Raise ApiError with the runner's status and message, as Ollama does, when the runner refuses."""
    if answer.status >= 400:
        raise ApiError(answer.status, upstream_message(answer.status, answer.read()))


def _shaped(parts: Iterator[Object], typed: str, shape: Any) -> Iterator[Object]:
    for part in parts:
        end = part.pop("end", {"done": False})
        yield {"model": typed, "created_at": gojson.now(), **shape(part), **end}


def _stream(lines: Iterator[Object]) -> Response:
    """Stream *lines*; wait for the first line, so that a failure before it has its own status."""
    first = next(lines)

    def rest() -> Iterator[Object]:
        try:
            yield first
            yield from lines
        except RunnerDiedError:
            yield {"error": DIED}
        except ClientLeftError:
            return

    return wire.ndjson(rest())


def _joined(lines: list[Object], shape: Any) -> Object:
    """Join the *lines* of a stream into the one answer of ``stream: false``."""
    last = lines[-1]
    if logprobs := [entry for line in lines for entry in line.get("logprobs", [])]:
        last = last | {"logprobs": logprobs}
    if "response" in last:
        return last | {"response": "".join(line["response"] for line in lines)}
    messages = [line["message"] for line in lines]
    joined: Object = {"content": "".join(message["content"] for message in messages)}
    if thinking := "".join(message.get("thinking", "") for message in messages):
        joined["thinking"] = thinking
    if calls := [call for message in messages for call in message.get("tool_calls", [])]:
        joined["tool_calls"] = calls
    whole: Object = {**last, **shape(joined)}
    return whole

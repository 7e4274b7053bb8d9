"""``/api/chat``: chats."""

from __future__ import annotations

from typing import Any

from flask import Response, g

from app.api.base import Blueprint, or_stream
from app.body_limits import CHAT_BODY_LIMIT, accepts
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.chat import ChatBody, ChatRequestSchema, CompareRequestSchema
from app.schemas.chat_results import ChatResponseSchema, CompareResponseSchema
from app.streaming import event_stream, json_answer, last_event

_COMPARE = {
    "message": "Why is the sky blue?",
    "targets": [
        {"provider": "ollama", "model": "llama3.2:1b"},
        {"provider": "ollama", "model": "qwen3:0.6b"},
    ],
}

blp = Blueprint("chat", __name__, url_prefix="/api/chat", description="Chats with a model")


# Schema instances, not classes: flask-smorest would make a new instance of a class for each request.
@blp.post("")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(ChatRequestSchema(), example={"message": "Why is the sky blue?"})
@blp.response(200, ChatResponseSchema())
@blp.doc(responses=or_stream(ChatResponseSchema()))
@blp.alt_response(401, schema=ErrorSchema, description="The provider refuses the API key")
@blp.alt_response(404, schema=ErrorSchema, description="No such provider or model")
@blp.alt_response(429, schema=ErrorSchema, description="The provider allows no more requests for now")
@blp.alt_response(503, schema=ErrorSchema, description="The provider is not running, or is busy")
@blp.alt_response(504, schema=ErrorSchema, description="The provider did not answer in time")
def chat(body: ChatBody) -> Response:
    """Chat with a model

    With `"stream": true` the answer is a `text/event-stream`: one `start`, then `delta` events with
    `content`, `thinking` or `tool_calls`, then exactly one `done` (the response below) or `error` (the error
    body). While Ollama loads the model, `loading` events come after `start`.
    """
    answering = services.conversation_chat if body.get("conversation_id") else services.chat
    events = answering.answer(body, g.request_id)
    return event_stream(events) if body["stream"] else json_answer(last_event(events))


@blp.post("/compare")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(CompareRequestSchema, example=_COMPARE)
@blp.response(200, CompareResponseSchema)
@blp.doc(responses=or_stream(CompareResponseSchema))
def compare(body: dict[str, Any]) -> dict[str, Any] | Response:
    """Ask several models the same question at once

    When a model fails, its result holds its error, and the other models still answer. With `"stream": true`
    the answer is a `text/event-stream`: one `start`, then `delta`, `loading`, `answer` and `failed` events,
    each with the number of its `target`, then exactly one `done` (the response below) or `error`.
    """
    events = services.compare.answer(body, g.request_id)
    return event_stream(events) if body["stream"] else last_event(events)


@blp.delete("/<request_id>")
@blp.response(204)
@blp.alt_response(404, schema=ErrorSchema, description="No running answer has this id")
def stop_chat(request_id: str) -> None:
    """Stop a running answer

    The answer's stream ends with an `error` of the type `chat_stopped`. `request_id` is in the `start` event
    and in the `X-Request-ID` header of the answer. A client may choose it: send the header with the request.
    """
    services.chat.stop(request_id)

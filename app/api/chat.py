"""``/api/chat``: chats."""

from __future__ import annotations

from typing import Any

from flask import Response, g

from app.api.base import Blueprint
from app.body_limits import CHAT_BODY_LIMIT, accepts
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.chat import ChatBody, ChatRequestSchema, CompareRequestSchema
from app.schemas.chat_results import ChatResponseSchema, CompareResponseSchema
from app.streaming import event_stream, last_event

_COMPARE = {
    "message": "Why is the sky blue?",
    "targets": [
        {"provider": "ollama", "model": "llama3.2:1b"},
        {"provider": "ollama", "model": "qwen3:0.6b"},
    ],
}

blp = Blueprint("chat", __name__, url_prefix="/api/chat", description="Chats with a model")


# Instances, not classes: a class is made anew for each request.
@blp.post("")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(ChatRequestSchema(), example={"message": "Why is the sky blue?"})
@blp.response(200, ChatResponseSchema())
@blp.alt_response(401, schema=ErrorSchema, description="The provider refuses the API key")
@blp.alt_response(404, schema=ErrorSchema, description="No such provider or model")
@blp.alt_response(429, schema=ErrorSchema, description="The provider wants fewer requests")
@blp.alt_response(503, schema=ErrorSchema, description="The provider is not running, or busy")
@blp.alt_response(504, schema=ErrorSchema, description="The provider did not answer in time")
def chat(body: ChatBody) -> dict[str, Any] | Response:
    """Ask a model

    With `"stream": true` the answer is a `text/event-stream`: `start`, then `delta` with `content`,
    `thinking` or `tool_calls`, then exactly one of `done` (this response) or `error` (the error body).
    While Ollama loads the model, `loading` comes after `start`.
    """
    answering = services.conversation_chat if body.get("conversation_id") else services.chat
    events = answering.answer(body, g.request_id)
    return event_stream(events) if body["stream"] else last_event(events)


@blp.post("/compare")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(CompareRequestSchema, example=_COMPARE)
@blp.response(200, CompareResponseSchema)
def compare(body: dict[str, Any]) -> dict[str, Any] | Response:
    """Ask several models the same, side by side

    One that fails has its error in its result, and does not hurt the others. With `"stream": true` the
    answer is a `text/event-stream`: `start`, then `delta`, `loading`, `answer` and `failed`, each with the
    number of its `target`, then exactly one of `done` (this response) or `error`.
    """
    events = services.compare.answer(body, g.request_id)
    return event_stream(events) if body["stream"] else last_event(events)


@blp.delete("/<request_id>")
@blp.response(204)
@blp.alt_response(404, schema=ErrorSchema, description="No such answer is being made")
def stop_chat(request_id: str) -> None:
    """Stop an answer that is being made

    Its stream ends with an `error` of the type `chat_stopped`. The id is in `start`, and in the
    `X-Request-ID` header, which a client may choose itself.
    """
    services.chat.stop(request_id)

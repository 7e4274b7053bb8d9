"""``/v1``: OpenAI's API, for clients that already use it."""

from __future__ import annotations

from typing import Any

from flask import Response, g

from app.api.base import Blueprint, or_stream
from app.body_limits import CHAT_BODY_LIMIT, accepts
from app.extensions import services
from app.openai_errors import PREFIX
from app.schemas.openai_v1 import (
    OpenAIAnswerSchema,
    OpenAIChatSchema,
    OpenAICompletionSchema,
    OpenAIEmbeddingSchema,
    OpenAIErrorSchema,
    OpenAIModel,
    OpenAIModelList,
    OpenAIModelListSchema,
    OpenAIModelSchema,
    OpenAIRequest,
)
from app.streaming import byte_stream, openai_error_event, whole

Json = dict[str, Any]


class OpenAIBlueprint(Blueprint):
    """Views whose errors have OpenAI's form; this blueprint documents that."""

    def _prepare_response_doc(self, doc: Json, doc_info: Json, **kwargs: Any) -> Json:
        doc = super()._prepare_response_doc(doc, doc_info, **kwargs)
        content = {"application/json": {"schema": OpenAIErrorSchema}}
        error = {"description": "The error in OpenAI's form", "content": content}
        responses = doc["responses"]
        failures = [status for status in responses if status == "default" or int(status) >= 400]
        responses.update(dict.fromkeys([*failures, "default"], error))
        return doc


blp = OpenAIBlueprint(
    "openai_v1",
    __name__,
    url_prefix=PREFIX,
    description="The same models, for clients of OpenAI's API",
)


@blp.post("/chat/completions")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(
    OpenAIChatSchema(),
    example={"model": "llama3.2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]},
)
@blp.response(200, OpenAIAnswerSchema)
@blp.doc(responses=or_stream(OpenAIAnswerSchema))
def create_chat_completion(body: OpenAIRequest) -> Response:
    """Answer a conversation

    All other parameters are passed on to the provider unchanged. With `"stream": true` the provider's chunks
    are passed back as they come. An error in the middle of the stream is an event `{"error": ...}`, which
    ends the stream without `[DONE]`.
    """
    return _answer("chat/completions", body)


@blp.post("/completions")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(OpenAICompletionSchema(), example={"model": "llama3.2", "prompt": "Once upon a time"})
@blp.response(200, OpenAIAnswerSchema)
@blp.doc(responses=or_stream(OpenAIAnswerSchema))
def create_completion(body: OpenAIRequest) -> Response:
    """Continue a text

    Parameters and streams are passed on as for chat completions.
    """
    return _answer("completions", body)


@blp.post("/embeddings")
@accepts(CHAT_BODY_LIMIT)
@blp.arguments(OpenAIEmbeddingSchema(), example={"model": "nomic-embed-text", "input": "The sky"})
@blp.response(200, OpenAIAnswerSchema)
def create_embedding(body: OpenAIRequest) -> Response:
    """Make embeddings of texts"""
    return _answer("embeddings", body)


@blp.get("/models")
@blp.response(200, OpenAIModelListSchema)
def list_openai_models() -> OpenAIModelList:
    """List the models of all enabled providers

    Models of the default provider have their plain names; all others are named `provider/model`. A provider
    that does not answer within a few seconds is left out.
    """
    return services.gateway_models.list_models()


@blp.get("/models/<path:model>")
@blp.response(200, OpenAIModelSchema)
def get_openai_model(model: str) -> OpenAIModel:
    """Get one model"""
    return services.gateway_models.get_model(model)


def _answer(endpoint: str, body: OpenAIRequest) -> Response:
    chunks = services.gateway.ask(endpoint, body, g.request_id)
    return byte_stream(chunks, openai_error_event) if body.get("stream") else whole(chunks)

"""``/api/conversations``: stored chats."""

from __future__ import annotations

import json
from typing import Any

from flask import Response
from marshmallow import RAISE

from app.api.base import Blueprint
from app.body_limits import CHAT_BODY_LIMIT, accepts
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.conversations import (
    MAX_IMPORTED,
    ConversationFieldsSchema,
    ConversationListSchema,
    ConversationQuerySchema,
    ConversationSchema,
    ExportedConversationSchema,
    ExportQuerySchema,
    ImportResultSchema,
    ImportSchema,
    MessageQuerySchema,
    WholeConversationSchema,
)
from app.services.conversations import Listing, Summary, WholeConversation, as_markdown, file_name

blp = Blueprint("conversations", __name__, url_prefix="/api/conversations", description="Stored chats")


@blp.post("")
@blp.arguments(ConversationFieldsSchema, example={"title": "Sky", "system_prompt": "You are brief."})
@blp.response(201, ConversationSchema)
@blp.alt_response(404, schema=ErrorSchema, description="No such provider")
def create_conversation(body: dict[str, Any]) -> Summary:
    """Create a conversation; all fields are optional"""
    _check_provider(body)
    return services.conversations.create(**body)


@blp.get("")
@blp.arguments(ConversationQuerySchema, location="query", unknown=RAISE)
@blp.response(200, ConversationListSchema)
def list_conversations(query: dict[str, Any]) -> Listing:
    """List or search the conversations, the last used first"""
    return services.conversations.all(**query)


@blp.post("/import")
@accepts(CHAT_BODY_LIMIT, containers=5 * MAX_IMPORTED)
@blp.arguments(ImportSchema)
@blp.response(201, ImportResultSchema)
def import_conversations(body: dict[str, Any]) -> dict[str, Any]:
    """Import conversations that were exported as JSON

    The body is one exported conversation, a list of them, or an object with such a list as `conversations`.
    The conversations get new ids. When one of them is invalid, none is imported.
    """
    imported = services.imports.save(body["conversations"])
    return {"conversations": imported, "total": len(imported)}


@blp.get("/<id>")
@blp.arguments(MessageQuerySchema, location="query", unknown=RAISE)
@blp.response(200, WholeConversationSchema)
@blp.alt_response(404, schema=ErrorSchema, description="No such conversation")
def get_conversation(query: dict[str, Any], id: str) -> WholeConversation:
    """Get a conversation with its newest messages, or with those before a certain message"""
    return services.conversations.get(id, **query)


@blp.patch("/<id>")
@blp.arguments(ConversationFieldsSchema, example={"title": "Why the sky is blue"})
@blp.response(200, ConversationSchema)
@blp.alt_response(404, schema=ErrorSchema, description="No such conversation or provider")
def update_conversation(body: dict[str, Any], id: str) -> Summary:
    """Change the fields of the body; all other fields stay as they are"""
    _check_provider(body)
    return services.conversations.update(id, **body)


@blp.delete("/<id>")
@blp.response(204)
@blp.alt_response(404, schema=ErrorSchema, description="No such conversation")
def delete_conversation(id: str) -> None:
    """Delete a conversation with its messages, even while an answer is running"""
    services.conversations.delete(id)


@blp.get("/<id>/export")
@blp.arguments(ExportQuerySchema, location="query", unknown=RAISE)
@blp.response(200, ExportedConversationSchema)
@blp.alt_response(404, schema=ErrorSchema, description="No such conversation")
def export_conversation(query: dict[str, Any], id: str) -> Response:
    """Export a conversation as a file: JSON to import again, or Markdown to read"""
    exported = services.conversations.export(id)
    if query["format"] == "markdown":
        return _file(
            as_markdown(exported), "text/markdown; charset=utf-8", file_name(exported["title"], "md")
        )
    text = json.dumps(ExportedConversationSchema().dump(exported), indent=1)
    return _file(text, "application/json", file_name(exported["title"], "json"))


def _file(content: str, content_type: str, name: str) -> Response:
    response = Response(content, content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _check_provider(body: dict[str, Any]) -> None:
    """Check that the provider of a conversation exists."""
    if body.get("provider"):
        services.providers.get(body["provider"])

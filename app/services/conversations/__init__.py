"""Conversations: chats that the database keeps, with search, export, and a limit to the model's window."""

from app.services.conversations.chat import ConversationChat
from app.services.conversations.export import as_markdown, file_name
from app.services.conversations.heartbeats import Heartbeats
from app.services.conversations.imports import Imports
from app.services.conversations.late import LateAnswers
from app.services.conversations.rows import Summary, WholeConversation
from app.services.conversations.store import ConversationStore, Listing

__all__ = [
    "ConversationChat",
    "ConversationStore",
    "Heartbeats",
    "Imports",
    "LateAnswers",
    "Listing",
    "Summary",
    "WholeConversation",
    "as_markdown",
    "file_name",
]

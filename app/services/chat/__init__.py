"""Chats: send a request to a provider, or else to a fallback, and turn the answer into events for the client.

:class:`~app.services.chat.service.ChatService` runs the attempts. A dialect writes the request and reads the
answer in the words of one provider.
"""

from app.services.chat.attempts import (
    Attempt,
    Attempts,
    Event,
    new_messages,
    with_model_defaults,
    with_prompt,
)
from app.services.chat.compare import CompareService
from app.services.chat.context_window import ContextWindows, estimate
from app.services.chat.model_choice import ModelChoice
from app.services.chat.service import ChatService, Events
from app.services.chat.stops import Stops

__all__ = [
    "Attempt",
    "Attempts",
    "ChatService",
    "CompareService",
    "ContextWindows",
    "Event",
    "Events",
    "ModelChoice",
    "Stops",
    "estimate",
    "new_messages",
    "with_model_defaults",
    "with_prompt",
]

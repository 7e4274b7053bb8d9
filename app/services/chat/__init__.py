"""Chats: a request becomes attempts at providers, and their answers the events that a client reads."""

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

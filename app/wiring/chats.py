"""The services for chats, conversations and OpenAI's API."""

from __future__ import annotations

import logging

from app.services.chat.attempt import Call
from app.services.chat.attempts import Calls
from app.services.chat.compare import CompareService
from app.services.chat.model_choice import ModelChoice
from app.services.chat.service import ChatService
from app.services.conversations.chat import ConversationChat
from app.services.conversations.store import ConversationStore
from app.services.gateway.embeddings import EmbeddingService
from app.services.gateway.models import GatewayModels
from app.services.gateway.service import GatewayService
from app.services.ollama.service import OllamaService
from app.wiring.shared import Shared

log = logging.getLogger(__name__)


class ChatServices(Shared):
    """What the views of chats call."""

    @property
    def conversations(self) -> ConversationStore:
        """The chats that are kept."""
        return ConversationStore(self.database)

    @property
    def chat(self) -> ChatService:
        """The service that answers chats."""
        timeouts = self.settings.timeouts
        calls = Calls(self.providers, self.settings, self.clients, self.ollama_for, timeouts)
        choice = ModelChoice(self.ollama_for, self.clients, timeouts)
        return ChatService(calls, choice, self.windows, self.circuits, self.stops, timeouts, self._note_call)

    @property
    def conversation_chat(self) -> ConversationChat:
        """The service that answers chats, and keeps those of a conversation."""
        return ConversationChat(
            self.chat,
            self.conversations,
            self.windows,
            self.providers,
            self.settings,
            self.heartbeats,
            self.circuits,
        )

    @property
    def compare(self) -> CompareService:
        """The service that asks several models at once."""
        return CompareService(self.chat, self.stops, self.settings)

    def _note_call(self, call: Call) -> None:
        """Keep what is to be known of a call that is over."""
        if call.is_done:
            self.model_uses.touch(call.provider.id, call.model)
        record = call.record()
        self.usage.record(record)
        log.info(
            "%s %s/%s: %s, %s tokens in %.2f s",
            call.request_id,
            call.provider.id,
            call.model.encode("unicode_escape").decode("ascii"),  # no forged lines in the log
            record.outcome,
            record.completion_tokens,
            record.latency,
        )

    @property
    def gateway(self) -> GatewayService:
        """The service that passes requests on as they are."""
        return GatewayService(
            self.providers,
            self.settings,
            self.clients,
            self.ollama_for,
            self.model_uses.touch,
            self.usage.record,
            self.circuits,
        )

    @property
    def gateway_models(self) -> GatewayModels:
        """The models of all providers, for clients of OpenAI's API."""
        return GatewayModels(
            self.providers,
            self.settings,
            self.clients,
            lambda provider, timeouts: OllamaService(self.session, provider, timeouts),
        )

    @property
    def embeddings(self) -> EmbeddingService:
        """The service that makes embeddings."""
        return EmbeddingService(self.settings, self.gateway)

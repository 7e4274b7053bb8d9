"""The objects that each app has one of, for its views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.services.chat import ChatService
from app.services.ollama import OllamaService
from app.services.openai_client import OpenAIClients
from app.services.preferences import PreferenceStore
from app.services.providers import Provider, ProviderStore
from app.services.pulls import PullService
from app.services.upstream import UpstreamSession
from app.settings import Settings


@dataclass(frozen=True)
class Services:
    """What the views of one app call."""

    settings: Settings
    providers: ProviderStore
    preferences: PreferenceStore
    clients: OpenAIClients
    session: UpstreamSession
    pulls: PullService

    def ollama_for(self, provider: Provider) -> OllamaService:
        """Return the service for an Ollama provider."""
        return OllamaService(self.session, provider, self.preferences.timeouts)

    @property
    def ollama(self) -> OllamaService:
        """The service for the provider `ollama`."""
        return self.ollama_for(self.providers.get("ollama"))

    def close(self) -> None:
        """Close the connections to all upstreams."""
        self.clients.close()
        self.session.close()

    @property
    def chat(self) -> ChatService:
        """The service that answers chats."""
        return ChatService(self.providers, self.preferences, self.clients, self.ollama_for)


def _services() -> Services:
    return cast("Services", current_app.extensions["services"])


services = cast("Services", LocalProxy(_services))

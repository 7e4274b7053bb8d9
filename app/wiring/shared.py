"""What all services of an app share: its stores, its connections, its workers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.config import Config, Timeouts
from app.services.chat.context_window import Windows
from app.services.chat.stops import Stops
from app.services.conversations.heartbeats import Heartbeats
from app.services.jobs.queue import Jobs
from app.services.models.uses import ModelUses
from app.services.ollama.service import OllamaService
from app.services.providers.circuits import Circuits
from app.services.providers.openai_api import OpenAIClients
from app.services.providers.store import Provider, ProviderStore
from app.services.pulls.feed import PullFeeds
from app.services.settings import SettingsStore
from app.services.usage.log import UsageLog
from app.storage.database import Database
from app.upstream.session import UpstreamSession


@dataclass(frozen=True)
class Shared:
    """What an app has one of."""

    config: Config
    providers: ProviderStore
    settings: SettingsStore
    clients: OpenAIClients
    session: UpstreamSession
    database: Database
    jobs: Jobs
    model_uses: ModelUses
    usage: UsageLog
    feeds: PullFeeds
    windows: Windows
    circuits: Circuits
    stops: Stops
    heartbeats: Heartbeats

    def ollama_for(self, provider: Provider) -> OllamaService:
        """Return the service for an Ollama provider."""
        return OllamaService(self.session, provider, self.settings.timeouts)

    def hasty_ollama_for(self, provider: Provider) -> OllamaService:
        """Return the same for what is good to know and not worth a wait."""
        return OllamaService(self.session, provider, self.hasty)

    @property
    def ollama(self) -> OllamaService:
        """The service for the provider `ollama`."""
        return self.ollama_for(self.providers.get("ollama"))

    @property
    def hasty(self) -> Timeouts:
        """The timeouts for what is good to know and not worth a wait."""
        return replace(self.settings.timeouts, connect=1, list=2)

    def close(self) -> None:
        """Stop the workers, and close all connections."""
        self.jobs.stop()
        self.stops.close()
        self.heartbeats.close()
        self.model_uses.close()
        self.usage.close()
        self.clients.close()
        self.session.close()
        self.database.close()

"""The objects that each app has one of, for its views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.db import Database
from app.services.chat import ChatService
from app.services.jobs import Jobs
from app.services.ollama import OllamaService
from app.services.openai_client import OpenAIClients
from app.services.preferences import PreferenceStore
from app.services.providers import Provider, ProviderStore
from app.services.pull_run import PullRun, new_owner
from app.services.pull_store import PullStore
from app.services.pulls import PullService
from app.services.registry import RegistryService
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
    database: Database
    jobs: Jobs

    def ollama_for(self, provider: Provider) -> OllamaService:
        """Return the service for an Ollama provider."""
        return OllamaService(self.session, provider, self.preferences.timeouts)

    @property
    def ollama(self) -> OllamaService:
        """The service for the provider `ollama`."""
        return self.ollama_for(self.providers.get("ollama"))

    @property
    def pull_store(self) -> PullStore:
        """The pulls as they are kept."""
        return PullStore(self.database)

    @property
    def pulls(self) -> PullService:
        """The service for pulls."""
        return PullService(self.pull_store, self.settings.allowed_registries, self.jobs.enqueue)

    @property
    def registry(self) -> RegistryService:
        """The service for the registries that models come from."""
        return RegistryService(self.session, self.preferences.timeouts)

    def run_pull(self, id: str) -> None:
        """Run a pull, unless another worker has it; called by the workers."""
        owner = new_owner()
        pull = self.pull_store.claim(id, owner, self.settings.max_pulls)
        if pull is not None:
            store, stopping = self.pull_store, self.jobs.stopping
            PullRun(store, self.ollama, self.registry, pull, owner, stopping).run()

    def close(self) -> None:
        """Stop the workers, and close all connections."""
        self.jobs.stop()
        self.clients.close()
        self.session.close()
        self.database.close()

    @property
    def chat(self) -> ChatService:
        """The service that answers chats."""
        return ChatService(self.providers, self.preferences, self.clients, self.ollama_for)


def make_services(settings: Settings) -> Services:
    """Return the services of an app."""
    database = Database(settings.database_url, settings.data_dir)
    database.migrate()
    services: Services
    jobs = Jobs(
        settings.redis_url,
        settings.data_dir,
        settings.max_pulls,
        run=lambda id: services.run_pull(id),
        waiting=lambda: services.pull_store.waiting(),
    )
    services = Services(
        settings=settings,
        providers=ProviderStore(
            settings.providers_file, settings.data_dir / "providers.json", settings.enable, settings.environ
        ),
        preferences=PreferenceStore(settings.data_dir / "settings.json", settings.timeouts),
        clients=OpenAIClients(),
        session=UpstreamSession(),
        database=database,
        jobs=jobs,
    )
    return services


def _services() -> Services:
    return cast("Services", current_app.extensions["services"])


services = cast("Services", LocalProxy(_services))

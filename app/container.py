"""Make every service of an app, once, each after the services that it needs.

Settings and providers can change while the program runs. So a service gets their store, and reads the current
values at each request.
"""

from __future__ import annotations

from app.config import Config
from app.services.catalog import Offers, ProviderCheck
from app.services.chat import Attempts, ChatService, CompareService, ContextWindows, ModelChoice, Stops
from app.services.conversations import (
    ConversationChat,
    ConversationStore,
    Heartbeats,
    Imports,
    LateAnswers,
)
from app.services.gateway import EmbeddingService, GatewayModels, GatewayService
from app.services.jobs import Chores, Jobs, PullWorker
from app.services.models import (
    CreationService,
    DiskService,
    InstalledModels,
    LastModels,
    MemoryService,
    ModelUses,
    Protection,
    RemovalService,
    UploadService,
    VersionService,
    VersionStore,
)
from app.services.ollama import ModelFolders, OllamaServers, RegistryService
from app.services.providers import Circuits, OpenAIClients, ProviderStore
from app.services.pulls import IdempotencyService, Occasions, PlanService, PullFeeds, PullService, PullStore
from app.services.settings import SettingsStore
from app.services.updates import DailyUpdate, RegistryAnswers, UpdateService
from app.services.usage import UsageLog
from app.stopping import stopping
from app.storage.database import Database
from app.storage.folder import prepare, warn_if_open
from app.upstream.readiness import Readiness
from app.upstream.session import UpstreamSession


class Services:
    """The services that the views and the commands call."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._is_stopping = False
        prepare(config.data_dir)
        if config.env_file:
            warn_if_open(config.env_file)
        self.database = Database(config.database_url, config.data_dir)
        self.database.migrate()
        self._make_connections()
        self._make_models()
        self._make_pulls()
        self._make_updates()
        self._make_chats()
        self._make_gateway()
        self._assign_work()

    @property
    def failures(self) -> list[str]:
        """The background work of this process that fails or does not run, each a sentence that says why."""
        rooms = (self.feeds, self.stops, self.heartbeats, self.usage)
        return self.jobs.failures + [room.failure for room in rooms if room.failure]

    def stop(self) -> None:
        """Let everything that is under way end, because the process is being stopped; does not wait for it.

        A signal's handler may call this, again and again.
        """
        if not self._is_stopping:  # setting an event takes a lock, which an interrupted call would hold
            self._is_stopping = True
            stopping.set()
            self.jobs.stopping.set()

    def close(self) -> None:
        """Stop the workers, write the rows that are still in memory, and close all connections."""
        self.late_answers.close()  # these two first: the other steps may wait
        self.usage.close()
        self.jobs.stop()
        self.feeds.close()
        self.stops.close()
        self.heartbeats.close()
        self.clients.close()
        self.session.close()
        self.database.close()

    def _make_connections(self) -> None:
        config, folder = self.config, self.config.data_dir
        self.settings = SettingsStore(folder / "settings.json", config.timeouts)
        self.providers = ProviderStore(
            config.providers_file, folder / "providers.json", config.enable, config.environ
        )
        self.readiness = Readiness()
        self.clients = OpenAIClients(config.max_answer, self.readiness)
        self.circuits = Circuits()
        self.session = UpstreamSession(config.max_answer)
        self.ollamas = OllamaServers(self.session, self.providers, self.settings, self.readiness)
        self.offers = Offers(self.ollamas, self.clients, self.settings)
        self.provider_check = ProviderCheck(self.providers, self.offers)
        self.folders = ModelFolders(config.environ)
        self.registry = RegistryService(self.session, lambda: self.settings.timeouts)
        self.hasty_registry = RegistryService(self.session, self.settings.hasty_timeouts)
        self.usage = UsageLog(self.database)
        self.model_uses = ModelUses(self.database)

    def _make_models(self) -> None:
        ollamas, folder = self.ollamas, self.config.data_dir
        protection = Protection(self.settings)
        self.version_store = VersionStore(self.database)
        self.models = InstalledModels(ollamas, LastModels(folder / "models.json"), protection)
        self.memory = MemoryService(ollamas)
        self.creations = CreationService(ollamas, UploadService(ollamas, folder), protection)
        self.removal = RemovalService(ollamas, self.folders, self.memory, self.version_store, protection)
        self.disk = DiskService(ollamas, self.folders, self.model_uses, self.version_store, self.settings)
        self.versions = VersionService(self.version_store, ollamas, self.settings)

    def _make_pulls(self) -> None:
        config = self.config
        self.pull_store = PullStore(self.database)
        self.jobs = Jobs(config.redis_url, config.data_dir, config.max_pulls)
        self.worker = PullWorker(
            self.pull_store,
            self.ollamas,
            self.hasty_registry,
            self.versions,
            self.settings,
            self.jobs.stopping,
            config.max_pulls,
        )
        self.plans = PlanService(
            self.ollamas,
            self.folders,
            self.registry,
            self.hasty_registry,
            self.settings,
            config.allowed_registries,
        )
        self.feeds = PullFeeds(self.pull_store)
        self.pulls = PullService(
            self.pull_store,
            self.plans,
            self.versions,
            self.settings,
            self.feeds,
            self.jobs.enqueue,
            self.jobs.stopping,
        )
        self.idempotency = IdempotencyService(self.database)

    def _make_updates(self) -> None:
        answers = RegistryAnswers(
            self.config.data_dir / "updates.json", self.registry, self.config.allowed_registries
        )
        self.updates = UpdateService(
            self.ollamas, self.plans, self.versions, self.pulls, answers, self.settings
        )

    def _make_chats(self) -> None:
        self.conversations = ConversationStore(self.database)
        self.imports = Imports(self.database)
        self.late_answers = LateAnswers(self.conversations, self.config.data_dir / "answers")
        self.heartbeats = Heartbeats(self.conversations)
        self.stops = Stops(self.database)
        windows = ContextWindows(self.ollamas, self.settings)
        self.chat = ChatService(
            Attempts(self.providers, self.settings, self.clients, self.ollamas, windows),
            ModelChoice(self.offers),
            windows,
            self.circuits,
            self.stops,
            self.usage,
        )
        self.compare = CompareService(self.chat, self.stops, self.settings)
        self.conversation_chat = ConversationChat(
            self.chat,
            self.conversations,
            windows,
            self.providers,
            self.settings,
            self.heartbeats,
            self.circuits,
            self.late_answers,
        )

    def _make_gateway(self) -> None:
        self.gateway = GatewayService(
            self.providers,
            self.settings,
            self.clients,
            self.offers,
            self.usage.record,
            self.circuits,
        )
        self.gateway_models = GatewayModels(self.providers, self.settings, self.offers)
        self.embeddings = EmbeddingService(self.settings, self.gateway)

    def _assign_work(self) -> None:
        daily = DailyUpdate(
            self.settings, Occasions(self.database), self.version_store, self.pulls, self.updates
        )
        self.chores = Chores(
            self.settings,
            self.model_uses,
            self.idempotency,
            self.pull_store,
            self.usage,
            self.imports,
            self.late_answers,
            self.versions,
            daily,
        )
        self.jobs.assign(self.worker.run, self.pull_store.waiting, self.chores.do)

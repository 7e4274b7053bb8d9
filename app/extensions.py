"""The objects that each app has one of, for its views."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from flask import current_app
from werkzeug.local import LocalProxy

from app.db import Database
from app.errors import ServiceError
from app.services.answers import RegistryAnswers
from app.services.auto_update import AutoUpdate
from app.services.call import Call
from app.services.calls import Calls
from app.services.chat import ChatService
from app.services.circuit import Circuits
from app.services.compare import CompareService
from app.services.conversation_chat import ConversationChat
from app.services.conversation_store import ConversationStore
from app.services.creations import CreationService
from app.services.disk import DiskService
from app.services.embeddings import EmbeddingService
from app.services.front_door import FrontDoorService
from app.services.idempotency import IdempotencyService
from app.services.jobs import Jobs
from app.services.last_models import LastModels
from app.services.library import ModelLibrary
from app.services.local_store import LocalStore
from app.services.memory import MemoryService
from app.services.model_choice import ModelChoice
from app.services.model_uses import ModelUses
from app.services.ollama import OllamaService, check_name
from app.services.openai_client import OpenAIClients
from app.services.plan import PlanService
from app.services.preferences import PreferenceStore
from app.services.protection import Protection
from app.services.providers import Provider, ProviderStore
from app.services.pull_feed import PullFeeds
from app.services.pull_store import PullStore
from app.services.pulls import PullService, check_registry
from app.services.registry import RegistryService
from app.services.relay import RelayService
from app.services.removal import RemovalService
from app.services.schedule import Occasions
from app.services.stops import Stops
from app.services.updates import UpdateService
from app.services.uploads import UploadService
from app.services.upstream import UpstreamSession
from app.services.usage import UsageLog
from app.services.versions import VersionService, VersionStore
from app.services.windows import Windows
from app.services.work import Chores, PullWorker, may_run
from app.settings import Settings, Timeouts, is_loopback

log = logging.getLogger(__name__)


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
    model_uses: ModelUses
    usage: UsageLog
    feeds: PullFeeds
    windows: Windows
    circuits: Circuits
    stops: Stops

    def ollama_for(self, provider: Provider) -> OllamaService:
        """Return the service for an Ollama provider."""
        return OllamaService(self.session, provider, self.preferences.timeouts)

    def hasty_ollama_for(self, provider: Provider) -> OllamaService:
        """Return the same for what is good to know and not worth a wait."""
        return OllamaService(self.session, provider, self._hasty)

    @property
    def ollama(self) -> OllamaService:
        """The service for the provider `ollama`."""
        return self.ollama_for(self.providers.get("ollama"))

    @property
    def library(self) -> ModelLibrary:
        """The service for the installed models."""
        ollama = self.ollama
        last = LastModels(self.settings.data_dir / "models.json", ollama.provider.native_url)
        return ModelLibrary(ollama, last, self._protection)

    @property
    def _protection(self) -> Protection:
        return Protection(self.preferences.all()["protected_models"])

    @property
    def removal(self) -> RemovalService:
        """The service that deletes models."""
        versions = VersionStore(self.database)
        return RemovalService(self.ollama, self.settings.environ, versions, self._protection)

    @property
    def memory(self) -> MemoryService:
        """The service for the models in memory."""
        return MemoryService(self.ollama)

    @property
    def creations(self) -> CreationService:
        """The service that makes models."""
        ollama = self.ollama
        return CreationService(ollama, UploadService(ollama, self.settings.data_dir), self._protection)

    @property
    def pull_store(self) -> PullStore:
        """The pulls as they are kept."""
        return PullStore(self.database)

    @property
    def pulls(self) -> PullService:
        """The service for pulls."""
        registries, jobs = self.settings.allowed_registries, self.jobs
        may_pull = partial(may_run, preferences=self.preferences)
        return PullService(self.pull_store, registries, jobs.enqueue, self.feeds, jobs.stopping, may_pull)

    @property
    def idempotency(self) -> IdempotencyService:
        """The service for requests that are sent again."""
        return IdempotencyService(self.database)

    @property
    def registry(self) -> RegistryService:
        """The service for the registries that models come from."""
        return RegistryService(self.session, self.preferences.timeouts)

    def local_store(self, ollama: OllamaService) -> LocalStore | None:
        """Return the models folder of *ollama*, where it is on this machine."""
        if LocalStore.find(ollama.provider, self.settings.environ) is None:
            return None
        digests = [model["digest"] for model in ollama.list()["models"]]
        return LocalStore.find(ollama.provider, self.settings.environ, digests)

    @property
    def plans(self) -> PlanService:
        """The service that tells what a pull would do."""
        return self._plans(self.preferences.timeouts)

    def _plans(self, timeouts: Timeouts) -> PlanService:
        ollama = OllamaService(self.session, self.providers.get("ollama"), timeouts)
        registry = RegistryService(self.session, timeouts)
        is_here = is_loopback(urlsplit(ollama.provider.native_url).hostname or "")
        return PlanService(
            ollama, registry, self.local_store(ollama), self.settings.allowed_registries, is_here
        )

    @property
    def _hasty(self) -> Timeouts:
        """The timeouts for what is good to know and not worth a wait."""
        return replace(self.preferences.timeouts, connect=1, list=2)

    def check_disk(self, model: str, *, insecure: bool) -> None:
        """See to it that *model* fits on the disk, where that is known in a moment.

        :raises DiskFull: when it does not
        """
        name = check_name(model)
        check_registry(name.host, insecure=insecure, allowed=self.settings.allowed_registries)
        try:
            plans = self._plans(self._hasty)
        except ServiceError as exc:  # the pull itself says what is wrong
            log.info("the disk is not checked: %s", exc.message)
        else:
            plans.check_disk(name, insecure=insecure)

    @property
    def versions(self) -> VersionService:
        """The service for former versions of models."""
        preferred = self.preferences.all()
        limit, protected = preferred["keep_versions"], preferred["protected_models"]
        return VersionService(VersionStore(self.database), self.ollama, limit, protected)

    @property
    def updates(self) -> UpdateService:
        """The service for updates."""
        answers = RegistryAnswers(
            self.settings.data_dir / "updates.json", self.registry, self.settings.allowed_registries
        )
        pinned = tuple(self.preferences.all()["pinned_models"])
        return UpdateService(self.plans, self.versions, self.pulls, answers, pinned)

    @property
    def auto_update(self) -> AutoUpdate:
        """What updates models by itself, where that is switched on."""
        return AutoUpdate(
            self.preferences.all()["updates"],
            Occasions(self.database),
            VersionStore(self.database),
            self.pulls,
            lambda include_loaded: self.updates.start(None, include_loaded=include_loaded, automatic=True),
        )

    def disk(self) -> dict[str, Any]:
        """Return what the models take on the disk."""
        ollama = self.ollama
        preferred, versions = self.preferences.all(), VersionStore(self.database)
        return DiskService(ollama, self.local_store(ollama), self.model_uses, versions, preferred).usage()

    def resume_pull(self, id: str) -> dict[str, Any]:
        """Go on with a pull that is paused, or that failed or was cancelled."""
        pull = self.pulls.get(id)
        is_new = pull["status"] in {"failed", "cancelled"}
        return self.updates.resume(pull) if is_new else self.pulls.change(id, "running")

    def do_chores(self) -> None:
        """Look after what goes on by itself; called by the workers."""
        Chores(
            self.preferences, self.model_uses, self.idempotency, self.pull_store, self.usage, self.versions,
            self.auto_update,
        ).do()  # fmt: skip

    def run_pull(self, id: str) -> None:
        """Run a pull, unless another worker has it; called by the workers."""
        store, registry = self.pull_store, RegistryService(self.session, self._hasty)
        stopping, limit = self.jobs.stopping, self.settings.max_pulls
        if PullWorker(store, self.ollama, registry, self.preferences, stopping, limit).run(id):
            self.do_chores()  # an update may be over

    def close(self) -> None:
        """Stop the workers, and close all connections."""
        self.jobs.stop()
        self.stops.close()
        self.model_uses.close()
        self.usage.close()
        self.clients.close()
        self.session.close()
        self.database.close()

    @property
    def conversations(self) -> ConversationStore:
        """The chats that are kept."""
        return ConversationStore(self.database)

    @property
    def chat(self) -> ChatService:
        """The service that answers chats."""
        timeouts = self.preferences.timeouts
        calls = Calls(self.providers, self.preferences, self.clients, self.ollama_for, self.windows)
        choice = ModelChoice(self.ollama_for, self.clients, timeouts)
        return ChatService(calls, choice, self.windows, self.circuits, self.stops, timeouts, self._note_call)

    @property
    def conversation_chat(self) -> ConversationChat:
        """The service that answers chats, and keeps those of a conversation."""
        return ConversationChat(self.chat, self.conversations, self.windows, self.providers, self.preferences)

    @property
    def compare(self) -> CompareService:
        """The service that asks several models at once."""
        return CompareService(self.chat, self.stops)

    def _note_call(self, call: Call) -> None:
        """Keep what is to be known of a call that is over."""
        if call.is_done:
            self.model_uses.touch(call.provider.id, call.model)
        self.usage.record(call.record())

    @property
    def relay(self) -> RelayService:
        """The service that passes requests on as they are."""
        return RelayService(
            self.providers,
            self.preferences,
            self.clients,
            self.ollama_for,
            self.model_uses.touch,
            self.usage.record,
            self.circuits,
        )

    @property
    def front_door(self) -> FrontDoorService:
        """The service for clients of OpenAI's API."""
        return FrontDoorService(
            self.providers,
            self.preferences,
            self.clients,
            lambda provider, timeouts: OllamaService(self.session, provider, timeouts),
            self.relay,
        )

    @property
    def embeddings(self) -> EmbeddingService:
        """The service that makes embeddings."""
        return EmbeddingService(self.preferences, self.relay)


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
        chores=lambda: services.do_chores(),
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
        feeds=PullFeeds(),
        model_uses=ModelUses(database),
        windows=Windows(lambda provider: services.hasty_ollama_for(provider)),
        circuits=Circuits(),
        stops=Stops(database),
        usage=UsageLog(database),
    )
    return services


def _services() -> Services:
    return cast("Services", current_app.extensions["services"])


services = cast("Services", LocalProxy(_services))

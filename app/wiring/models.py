"""The services for models, their downloads and their updates."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from app.config import Timeouts, is_loopback
from app.errors import ServiceError
from app.services.jobs.worker import Chores, PullWorker
from app.services.models.create import CreationService
from app.services.models.delete import RemovalService
from app.services.models.disk import DiskService
from app.services.models.installed import LastModels, ModelLibrary
from app.services.models.memory import MemoryService
from app.services.models.protection import Protection
from app.services.models.upload import UploadService
from app.services.models.versions import VersionService, VersionStore
from app.services.ollama.folder import LocalStore
from app.services.ollama.names import check_name
from app.services.ollama.registry import RegistryService, check_registry
from app.services.ollama.service import OllamaService
from app.services.pulls.idempotency import IdempotencyService
from app.services.pulls.plan import PlanService
from app.services.pulls.schedule import Occasions
from app.services.pulls.service import PullService
from app.services.pulls.store import PullStore
from app.services.pulls.window import may_run
from app.services.updates.daily import AutoUpdate
from app.services.updates.registry_answers import RegistryAnswers
from app.services.updates.service import UpdateService
from app.wiring.shared import Shared

log = logging.getLogger(__name__)


class ModelServices(Shared):
    """What the views of models call."""

    @property
    def library(self) -> ModelLibrary:
        """The service for the installed models."""
        ollama = self.ollama
        last = LastModels(self.config.data_dir / "models.json", ollama.provider.native_url)
        return ModelLibrary(ollama, last, self._protection)

    @property
    def _protection(self) -> Protection:
        return Protection(self.settings.all()["protected_models"])

    @property
    def removal(self) -> RemovalService:
        """The service that deletes models."""
        versions = VersionStore(self.database)
        return RemovalService(self.ollama, self.config.environ, versions, self._protection)

    @property
    def memory(self) -> MemoryService:
        """The service for the models in memory."""
        return MemoryService(self.ollama)

    @property
    def creations(self) -> CreationService:
        """The service that makes models."""
        ollama = self.ollama
        return CreationService(ollama, UploadService(ollama, self.config.data_dir), self._protection)

    @property
    def pull_store(self) -> PullStore:
        """The pulls as they are kept."""
        return PullStore(self.database)

    @property
    def pulls(self) -> PullService:
        """The service for pulls."""
        registries, jobs = self.config.allowed_registries, self.jobs
        may_pull = partial(may_run, settings=self.settings)
        return PullService(self.pull_store, registries, jobs.enqueue, self.feeds, jobs.stopping, may_pull)

    @property
    def idempotency(self) -> IdempotencyService:
        """The service for requests that are sent again."""
        return IdempotencyService(self.database)

    @property
    def registry(self) -> RegistryService:
        """The service for the registries that models come from."""
        return RegistryService(self.session, self.settings.timeouts)

    def local_store(self, ollama: OllamaService) -> LocalStore | None:
        """Return the models folder of *ollama*, where it is on this machine."""
        if LocalStore.find(ollama.provider, self.config.environ) is None:
            return None
        digests = [model["digest"] for model in ollama.list()["models"]]
        return LocalStore.find(ollama.provider, self.config.environ, digests)

    @property
    def plans(self) -> PlanService:
        """The service that tells what a pull would do."""
        return self._plans(self.settings.timeouts)

    def _plans(self, timeouts: Timeouts) -> PlanService:
        ollama = OllamaService(self.session, self.providers.get("ollama"), timeouts)
        registry = RegistryService(self.session, timeouts)
        is_here = is_loopback(urlsplit(ollama.provider.native_url).hostname or "")
        return PlanService(
            ollama, registry, self.local_store(ollama), self.config.allowed_registries, is_here
        )

    def check_disk(self, model: str, *, insecure: bool) -> None:
        """See to it that *model* fits on the disk, where that is known in a moment.

        :raises DiskFull: when it does not
        """
        name = check_name(model)
        check_registry(name.host, insecure=insecure, allowed=self.config.allowed_registries)
        try:
            plans = self._plans(self.hasty)
        except ServiceError as exc:  # the pull itself says what is wrong
            log.info("the disk is not checked: %s", exc.message)
        else:
            plans.check_disk(name, insecure=insecure)

    @property
    def versions(self) -> VersionService:
        """The service for former versions of models."""
        preferred = self.settings.all()
        limit, protected = preferred["keep_versions"], preferred["protected_models"]
        return VersionService(VersionStore(self.database), self.ollama, limit, protected)

    @property
    def updates(self) -> UpdateService:
        """The service for updates."""
        answers = RegistryAnswers(
            self.config.data_dir / "updates.json", self.registry, self.config.allowed_registries
        )
        pinned = tuple(self.settings.all()["pinned_models"])
        return UpdateService(self.plans, self.versions, self.pulls, answers, pinned)

    @property
    def auto_update(self) -> AutoUpdate:
        """What updates models by itself, where that is switched on."""
        return AutoUpdate(
            self.settings.all()["updates"],
            Occasions(self.database),
            VersionStore(self.database),
            self.pulls,
            lambda include_loaded: self.updates.start(None, include_loaded=include_loaded, automatic=True),
        )

    def disk(self) -> dict[str, Any]:
        """Return what the models take on the disk."""
        ollama = self.ollama
        preferred, versions = self.settings.all(), VersionStore(self.database)
        return DiskService(ollama, self.local_store(ollama), self.model_uses, versions, preferred).usage()

    def resume_pull(self, id: str) -> dict[str, Any]:
        """Go on with a pull that is paused, or that failed or was cancelled."""
        pull = self.pulls.get(id)
        is_new = pull["status"] in {"failed", "cancelled"}
        return self.updates.resume(pull) if is_new else self.pulls.change(id, "running")

    def do_chores(self) -> None:
        """Look after what goes on by itself; called by the workers."""
        Chores(
            self.settings, self.model_uses, self.idempotency, self.pull_store, self.usage, self.versions,
            self.auto_update,
        ).do()  # fmt: skip

    def run_pull(self, id: str) -> None:
        """Run a pull, unless another worker has it; called by the workers."""
        store, registry = self.pull_store, RegistryService(self.session, self.hasty)
        stopping, limit = self.jobs.stopping, self.config.max_pulls
        if PullWorker(store, self.ollama, registry, self.settings, stopping, limit).run(id):
            self.do_chores()  # an update may be over

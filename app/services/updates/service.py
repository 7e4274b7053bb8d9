"""Find the installed models that have changed in their registry, and pull them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from app.manifest import Layer
from app.schemas.models import InstalledModel
from app.schemas.updates import ModelUpdate, SkippedUpdate, UpdateList, UpdateResult
from app.services.models import VersionService
from app.services.ollama import ManifestSummary, OllamaServers, check_name, is_plain, key_of
from app.services.pulls import Destination, PlanService, PullService, total
from app.services.settings import SettingsStore
from app.services.updates.registry_answers import Answer, RegistryAnswers
from app.storage.database import utc_now


@dataclass(frozen=True)
class UpdateService:
    """Finds and starts updates."""

    ollamas: OllamaServers
    plans: PlanService
    versions: VersionService
    pulls: PullService
    answers: RegistryAnswers
    settings: SettingsStore

    def check(self, *, refresh: bool = False, only: Collection[str] | None = None) -> UpdateList:
        """Compare each installed model with the model of the same name in its registry.

        :param refresh: ask the registries again, even if they answered within the last hour
        :param only: the keys of the models to compare; None for all
        """
        destination = self.plans.destination()
        listed = {key_of(model["name"]): model for model in destination.ollama.list()["models"]}
        kept = self.versions.names()
        models = {
            key: model for key, model in listed.items() if key not in kept and (only is None or key in only)
        }
        answers = self.answers.of({key: model["name"] for key, model in models.items()}, refresh=refresh)
        folder = destination.folder
        here = {key_of(name): manifest for name, manifest in folder.models().items()} if folder else {}
        previous = self.versions.previous({key: model["digest"] for key, model in listed.items()})
        pinned = {key_of(name) for name in self.settings.all()["pinned_models"]}
        found = []
        for key, model in models.items():
            item = _compare(destination, model, answers[key], here.get(key))
            item["previous"] = previous.get(key)
            if key in pinned:
                item["status"] = "pinned"
            found.append(item)
        return {
            "models": found,
            "checked_at": min((answer.asked_at for answer in answers.values()), default=utc_now()),
            "total": len(found),
            "outdated": sum(item["status"] == "outdated" for item in found),
        }

    def start(
        self,
        models: list[str] | None,
        *,
        include_loaded: bool = False,
        dry_run: bool = False,
        automatic: bool = False,
    ) -> UpdateResult:
        """Update *models*, or all models that are not pinned; return the updates and the skipped models.

        :param models: the names of the models, which are updated even when they are pinned; None for all
        :param include_loaded: update models in memory, too
        :param dry_run: return the updates without starting them
        :param automatic: mark the updates as automatic: they pause outside the time window
        :raises ModelNotFound: when one of *models* is not installed
        """
        only = None if models is None else {key_of(str(check_name(model))) for model in models}
        chosen = self._chosen(self.check(refresh=True, only=only)["models"], models)
        loaded = set() if include_loaded else self._loaded()
        room = self.plans.destination().disk([])
        items, skipped = choose(
            chosen, loaded, room["free_bytes"] if room else None, all_models=models is None
        )
        started = items if dry_run else [self._start(item, automatic=automatic) for item in items]
        return {
            "started": started,
            "skipped": skipped,
            "download_bytes": sum(item["download_bytes"] for item in started),
            "dry_run": dry_run,
        }

    def _start(self, item: ModelUpdate, *, automatic: bool) -> ModelUpdate:
        """Keep the installed version, then start the pull that replaces it."""
        kept = self.versions.keep(item["model"], item["digest"], automatic=automatic)
        insecure = is_plain(check_name(item["model"]))
        pull = self.pulls.start(item["model"], insecure=insecure, force=True)  # choose() looked at the disk
        self.versions.begun(kept, pull["id"])
        return {**item, "pull": pull, "kept_as": kept.name}

    def _chosen(self, items: list[ModelUpdate], models: list[str] | None) -> list[ModelUpdate]:
        if models is None:
            return items
        by_key = {key_of(item["model"]): item for item in items}
        wanted = {key_of(str(check_name(model))): model for model in models}
        for key, model in wanted.items():
            if key not in by_key:
                raise self.ollamas.main().model_not_found(model)
        return [by_key[key] for key in wanted]

    def _loaded(self) -> set[str]:
        return {key_of(model["name"]) for model in self.ollamas.main().ps()["models"]}


def _compare(
    destination: Destination, model: InstalledModel, answer: Answer, here: ManifestSummary | None
) -> ModelUpdate:
    """Compare an installed *model* with the registry's *answer*.

    :param here: the installed manifest; None if it cannot be read
    """
    item: ModelUpdate = {
        "model": model["name"],
        "status": answer.status or "current",
        "digest": model["digest"],
        "available_digest": answer.manifest.digest if answer.manifest else None,
        "download_bytes": 0,
        "needed_bytes": 0,
        "changed": [],
        "is_outdated": False,
    }
    new = answer.manifest
    if new is None:
        return {**item, "reason": answer.reason}
    if is_current(model["digest"], here, new):
        return item
    missing = destination.missing(new)
    disk = destination.disk(missing)
    return {
        **item,
        "status": "outdated",
        "is_outdated": True,
        "download_bytes": total(missing),
        "needed_bytes": disk["needed_bytes"] if disk else 0,
        "changed": changed_kinds(here, new, missing),
    }


def choose(
    items: list[ModelUpdate], loaded: set[str], free: int | None, *, all_models: bool
) -> tuple[list[ModelUpdate], list[SkippedUpdate]]:
    """Return which of *items* to update, and which to skip, with the reason.

    :param loaded: the keys of the models to skip because they are in memory
    :param free: the free bytes on the disk, None if not known; models that do not fit are skipped
    :param all_models: skip pinned models, too
    """
    chosen: list[ModelUpdate] = []
    skipped: list[SkippedUpdate] = []
    for item in items:
        reason = ""
        if not item["is_outdated"] or (all_models and item["status"] == "pinned"):
            reason = item["status"]
        elif key_of(item["model"]) in loaded:
            reason = "loaded"
        elif free is not None and item["needed_bytes"] > free:
            reason = "disk_full"
        elif free is not None:
            free -= item["needed_bytes"]
        if reason:
            skipped.append({"model": item["model"], "reason": reason})
        else:
            chosen.append(item)
    return chosen, skipped


def is_current(digest: str, installed: ManifestSummary | None, available: ManifestSummary) -> bool:
    """Tell whether the model that Ollama lists with *digest* is the registry's current one.

    An older Ollama may have encoded the same manifest differently: then the digests differ, but the layers
    are the same.
    """
    return available.is_same(digest) or (
        installed is not None
        and installed.digest == digest
        and _entries(installed.layers) == _entries(available.layers)
    )


def changed_kinds(old: ManifestSummary | None, new: ManifestSummary, missing: list[Layer]) -> list[str]:
    """Return the kinds of the layers that differ; without the *old* manifest, of the *missing* layers."""
    differing = _entries(old.layers) ^ _entries(new.layers) if old else _entries(missing)
    kinds = {kind for kind, _ in differing}
    return sorted(kinds - {"config"} or kinds)  # the config changes whenever another layer does


def _entries(layers: Iterable[Layer]) -> set[tuple[str, str]]:
    return {(layer.kind, layer.digest) for layer in layers}

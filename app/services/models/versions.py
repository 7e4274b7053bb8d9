"""Keep former versions of models: an update copies the version that it replaces, for a rollback."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import delete, select

from app.errors import ModelNotFound, NoPreviousVersion, PullActive
from app.model_name import ModelName
from app.schemas.updates import Rollback
from app.services.ollama import OllamaServers, check_name, find_model, key_of
from app.services.settings import SettingsStore
from app.storage.database import ACTIVE, Database, KeptVersion, Pull, is_fresh, utc_now

log = logging.getLogger(__name__)

_TAG_LENGTH = 80  # the most that Ollama accepts
_PATIENCE = timedelta(minutes=1)  # a kept version whose pull has not started by then belongs to no pull


class VersionStore:
    """The rows of the former versions in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[KeptVersion]:
        """Return all versions, the newest first."""
        with self._database.session() as session:
            query = select(KeptVersion).order_by(KeptVersion.created_at.desc(), KeptVersion.name)
            return [*session.scalars(query)]

    def kept(self, key: str) -> list[KeptVersion]:
        """Return the versions of a model that a rollback can install, the newest first."""
        return [row for row in self.all() if row.key == key and row.status == "kept"]

    def save(self, row: KeptVersion) -> None:
        """Insert *row*, or replace the row with the same name."""
        with self._database.session() as session:
            session.merge(row)

    def delete(self, name: str) -> None:
        """Delete the row of a version, not the version itself."""
        with self._database.session() as session:
            session.execute(delete(KeptVersion).where(KeptVersion.name == name))

    def over(self) -> list[KeptVersion]:
        """Return the pending versions whose pull is finished, or was never started."""
        active = select(Pull.id).where(Pull.status.in_(ACTIVE))
        begun = (KeptVersion.pull_id != "") | ~is_fresh(KeptVersion.created_at, _PATIENCE)
        pending = select(KeptVersion).where(KeptVersion.status == "pending", begun)
        with self._database.session() as session:
            return [*session.scalars(pending.where(KeptVersion.pull_id.not_in(active)))]

    def active_pulls(self, key: str) -> list[str]:
        """Return the ids of a model's unfinished pulls."""
        with self._database.session() as session:
            return [*session.scalars(select(Pull.id).where(Pull.key == key, Pull.status.in_(ACTIVE)))]


class VersionService:
    """Keeps versions, rolls back to them, and deletes those above the number in `keep_versions`."""

    def __init__(self, store: VersionStore, ollamas: OllamaServers, settings: SettingsStore) -> None:
        self._store = store
        self._ollamas = ollamas
        self._settings = settings

    def keep(self, model: str, digest: str, *, automatic: bool = False) -> KeptVersion:
        """Copy the installed version of *model* to another name, before an update replaces it.

        :param digest: the digest of the installed version
        :param automatic: whether the update is the daily one, not one that a client asked for
        """
        name = check_name(model)
        row = KeptVersion(
            name=str(kept_name(name, digest)), model=str(name), key=key_of(model), digest=digest,
            status="pending", pull_id="", automatic=automatic, created_at=utc_now(),
        )  # fmt: skip
        self._store.save(row)  # before the copy: a copy without a row would never be deleted
        self._ollamas.main().copy(model, row.name)
        return row

    def keep_installed(self, model: str) -> KeptVersion | None:
        """Keep the installed version of *model* until its pull is finished; None if it is not installed."""
        installed = find_model(self._ollamas.main().list()["models"], model)
        return self.keep(installed["name"], installed["digest"]) if installed else None

    def begun(self, row: KeptVersion, pull_id: str) -> None:
        """Record the pull that replaces the version of *row*."""
        row.pull_id = pull_id
        self._store.save(row)

    def settle(self) -> None:
        """End the updates whose pull is finished: keep the old version, or delete it if nothing changed."""
        over = self._store.over()
        if not over:
            return
        installed = self.installed()
        for row in over:
            if installed.get(row.key) in (None, row.digest):
                self._forget(row)
            else:
                row.status = "kept"
                self._store.save(row)
                self._prune(row.key, installed[row.key])

    def rollback(self, model: str) -> Rollback:
        """Install the previous version of *model* again, and keep the version that it replaces.

        :raises NoPreviousVersion: when no previous version is kept
        :raises PullActive: while the model is being updated or pulled, which would undo the rollback
        """
        name = check_name(model)
        self.settle()  # a finished update is only recorded by this call
        key, installed = key_of(model), self.installed()
        self._check_idle(str(name), key)
        there = [row for row in self._store.kept(key) if key_of(row.name) in installed]
        now = installed.get(key)
        row = next((row for row in there if row.digest != now), None)
        if row is None:
            raise NoPreviousVersion(
                f"No earlier version of '{name}' is kept.",
                hint="POST /api/providers/ollama/updates keeps one, unless `keep_versions` is 0.",
                details={"model": str(name)},
            )
        newer = self.keep(str(name), now) if now else None
        self._ollamas.main().copy(row.name, str(name))
        if newer:
            newer.status = "kept"
            self._store.save(newer)
        self._forget(row)
        return {
            "model": str(name),
            "digest": row.digest,
            "replaced_digest": now,
            "previous": newer.name if newer else None,
        }

    def previous(self, installed: Mapping[str, str]) -> dict[str, str]:
        """Return the name of the version that a rollback would install, by each model's key.

        :param installed: the digests of the installed models, by their keys
        """
        rows = [
            row
            for row in self._store.all()
            if row.status == "kept" and key_of(row.name) in installed and row.digest != installed.get(row.key)
        ]
        return {row.key: row.name for row in reversed(rows)}  # the newest comes last and wins

    def names(self) -> set[str]:
        """Return the keys of all kept versions' own names."""
        return {key_of(row.name) for row in self._store.all()}

    def installed(self) -> dict[str, str]:
        """Return the digests of the installed models, by their keys."""
        return {key_of(model["name"]): model["digest"] for model in self._ollamas.main().list()["models"]}

    def _check_idle(self, model: str, key: str) -> None:
        pending = [row.pull_id for row in self._store.all() if row.key == key and row.status == "pending"]
        ids = pending or self._store.active_pulls(key)
        if ids:
            raise PullActive(
                f"The model '{model}' is being {'updated' if pending else 'pulled'}.",
                hint="Wait for its pull, or cancel it: GET /api/providers/ollama/pulls",
                details={"model": model, "id": ids[0]},
            )

    def _prune(self, key: str, installed: str) -> None:
        limit = self._settings.all()["keep_versions"]
        for row in superfluous(self._store.kept(key), installed, limit):
            self._forget(row)

    def _forget(self, row: KeptVersion) -> None:
        if key_of(row.name) in map(key_of, self._settings.all()["protected_models"]):
            row.status = "kept"
            self._store.save(row)
            return
        try:
            self._ollamas.main().delete(row.name)
        except ModelNotFound:
            log.info("%s was gone already", row.name)
        self._store.delete(row.name)


def kept_name(name: ModelName, digest: str) -> ModelName:
    """Return the name for the version *digest* of *name*: the same name, its tag with ``-prev-<digest>``."""
    end = f"-prev-{digest.removeprefix('sha256:')[:12]}"
    tag = name.tag
    if len(tag) + len(end) > _TAG_LENGTH:  # cut the tag, and add a hash, as other tags may begin alike
        mark = hashlib.sha256(tag.lower().encode()).hexdigest()[:8]
        tag = f"{tag[: _TAG_LENGTH - len(end) - len(mark) - 1]}-{mark}"
    return replace(name, tag=tag + end)


def superfluous(kept: list[KeptVersion], installed: str, limit: int) -> list[KeptVersion]:
    """Return the versions to delete: those above the *limit*, and copies of the *installed* version.

    :param kept: the versions of one model, the newest first
    """
    former = [row for row in kept if row.digest != installed]
    return [row for row in kept if row not in former[:limit]]

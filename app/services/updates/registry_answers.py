"""Ask registries for the manifests of the installed models, in parallel; cache the answers for an hour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

from app.errors import ModelNotInRegistry, ServerStopping, ServiceError
from app.manifest import Layer
from app.model_name import ModelName
from app.services.ollama import ManifestSummary, RegistryService, check_registry, is_plain, parse_listed
from app.storage.database import is_fresh, utc_now
from app.storage.json_file import JsonFile

_FRESH = timedelta(hours=1)
_AT_ONCE = 4  # requests to one registry
_LOCAL = "The registry has no model of this name: the model was created or copied under it."
_ODD = "No registry can have a model of this name: the name is not valid."
_CLOUD = "The model runs in Ollama's cloud, which updates it."


@dataclass(frozen=True)
class Answer:
    """The answer of a registry about a model: its manifest, or else a status and the reason for it."""

    asked_at: datetime
    manifest: ManifestSummary | None = None
    status: str = ""
    reason: str = ""


class StoredAnswer(TypedDict):
    """An answer in the format of the cache file."""

    asked_at: str
    manifest: dict[str, Any] | None
    status: str
    reason: str


class RegistryAnswers:
    """Asks the registries, and caches their answers.

    :param path: the cache file
    :param allowed: the hosts that may be asked; a registry on this machine is always allowed
    """

    def __init__(self, path: Path, registry: RegistryService, allowed: tuple[str, ...]) -> None:
        self._file = JsonFile(path, _check)
        self._registry = registry
        self._allowed = allowed

    def of(self, listed: Mapping[str, str], *, refresh: bool) -> dict[str, Answer]:
        """Return the answers for the models in *listed*, from the last hour or new ones, by the models' keys.

        :param listed: the names that Ollama lists, by their keys
        :param refresh: ask for all models again
        """
        parsed = {key: parse_listed(name) for key, name in listed.items()}
        names = {key: name for key, name in parsed.items() if name is not None}
        odd = {key: Answer(utc_now(), status="unknown", reason=_ODD) for key in listed if key not in names}
        return {**self._known(names, refresh=refresh), **odd}

    def _known(self, names: Mapping[str, ModelName], *, refresh: bool) -> dict[str, Answer]:
        known = {} if refresh else _fresh(self._file.read())
        answers = {key: known[key] for key in names if key in known}
        unknown = {key: name for key, name in names.items() if key not in answers}
        if unknown:
            answers.update(self._ask(unknown))
            self._keep(answers)
        return answers

    def _ask(self, names: dict[str, ModelName]) -> dict[str, Answer]:
        """Ask all registries at the same time, each with at most _AT_ONCE requests at once."""
        hosts: defaultdict[str, dict[str, ModelName]] = defaultdict(dict)
        for key, name in names.items():
            hosts[name.host.lower()][key] = name
        with ExitStack() as stack:
            asked = []
            for of_host in hosts.values():
                pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE, "updates"))
                asked.append((of_host, pool.map(self._ask_one, of_host.values())))
            return {key: answer for keys, found in asked for key, answer in zip(keys, found, strict=True)}

    def _ask_one(self, name: ModelName) -> Answer:
        now = utc_now()
        if name.tag.lower() == "cloud" or name.tag.lower().endswith("-cloud"):
            return Answer(now, status="cloud", reason=_CLOUD)
        try:
            check_registry(name.host, insecure=False, allowed=self._allowed)
            return Answer(now, self._registry.manifest(name, insecure=is_plain(name)))
        except ModelNotInRegistry:
            return Answer(now, status="local", reason=_LOCAL)
        except ServerStopping:
            raise
        except ServiceError as exc:
            return Answer(now, status="unknown", reason=exc.message)

    def _keep(self, answers: dict[str, Answer]) -> None:
        """Replace the cache with *answers*; those of status `unknown` are left out, and asked for again."""
        known = {key: _kept(answer) for key, answer in answers.items() if answer.status != "unknown"}

        def change(stored: dict[str, StoredAnswer]) -> None:
            stored.clear()
            stored.update(known)

        self._file.update(change)


def _check(data: Mapping[str, StoredAnswer]) -> None:
    try:
        for entry in data.values():
            _restored(entry)
    except (LookupError, TypeError, AttributeError) as exc:
        raise ValueError("not the answers of registries") from exc


def _fresh(stored: Mapping[str, StoredAnswer]) -> dict[str, Answer]:
    answers = {key: _restored(entry) for key, entry in stored.items()}
    return {key: answer for key, answer in answers.items() if is_fresh(answer.asked_at, _FRESH)}


def _kept(answer: Answer) -> StoredAnswer:
    return {
        "asked_at": answer.asked_at.isoformat(),
        "manifest": asdict(answer.manifest) if answer.manifest else None,
        "status": answer.status,
        "reason": answer.reason,
    }


def _restored(entry: StoredAnswer) -> Answer:
    kept, manifest = entry["manifest"], None
    if kept is not None:
        layers = tuple(Layer(**layer) for layer in kept["layers"])
        manifest = ManifestSummary(kept["digest"], layers, tuple(kept["other_digests"]))
    return Answer(datetime.fromisoformat(entry["asked_at"]), manifest, entry["status"], entry["reason"])

"""Keep the providers: those shipped with the program, and the user's changes and additions."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from marshmallow import ValidationError

from app.errors import ProviderBuiltIn, ProviderDisabled, ProviderExists, ProviderNotFound
from app.schemas.providers import PROVIDER_ID, StoredProvider, StoredProviderSchema
from app.storage.json_file import JsonFile

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class Provider:
    """A provider with its settings in force: shipped, changed by the user, or from the environment."""

    id: str
    name: str = ""
    kind: str = "openai"
    enabled: bool = False
    api_key: str = field(default="", repr=False)
    api_key_env: str = ""
    model: str = ""
    base_url: str = ""
    status: str = "disconnected"
    last_checked: str = ""
    custom: bool = False
    api_key_source: str = ""

    @property
    def is_ollama(self) -> bool:
        """Whether an Ollama server answers at :attr:`base_url`."""
        return self.kind == "ollama"

    @property
    def native_url(self) -> str:
        """The base of Ollama's own API: :attr:`base_url` without its ``/v1``."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    @property
    def openai_url(self) -> str:
        """The base of the OpenAI-compatible API."""
        return f"{self.native_url}/v1" if self.is_ollama else self.base_url.rstrip("/")

    @property
    def api_key_set(self) -> bool:
        """Whether there is a key."""
        return bool(self.api_key)

    @property
    def api_key_last4(self) -> str:
        """The key's last four characters; empty for a short key, of which they would reveal too much."""
        return self.api_key[-4:] if len(self.api_key) >= 12 else ""


StoredProviders = dict[str, StoredProvider]
"""The stored values of providers, by id."""

_CONTAINER_MARK = Path("/.dockerenv")  # Docker makes this file in each container
_OF_THE_SERVER = frozenset({"api_key", "status", "last_checked"})
_STORED = frozenset(f.name for f in fields(Provider)) - {"id", "custom", "api_key_source"}


class ProviderStore:
    """The providers, by id.

    :param shipped: the program's own `providers.json`, which is only read
    :param path: the file with the user's changes
    :param enable: ids to enable for this run, unless the user's changes say otherwise
    :param environ: the environment, which may hold API keys
    """

    def __init__(
        self, shipped: Path, path: Path, enable: tuple[str, ...], environ: Mapping[str, str | None]
    ) -> None:
        self._shipped: StoredProviders = json.loads(shipped.read_text(encoding="utf-8"))
        self._file = JsonFile(path, _check_stored)
        self._enable = enable
        self._environ = environ
        self._in_force: tuple[StoredProviders, dict[str, Provider]] | None = None  # and their changes

    @property
    def damage(self) -> str:
        """What is wrong with the file of changes; empty when nothing is."""
        self._file.read()
        return self._file.damage

    def enable(self, id: str) -> None:
        """Enable a provider for this run, unless the user's changes say otherwise."""
        self._enable = (*self._enable, id)
        self._in_force = None

    def all(self) -> dict[str, Provider]:
        """Return all providers by id, the shipped providers first."""
        return dict(self._look())

    def get(self, id: str) -> Provider:
        """Return a provider.

        :raises ProviderNotFound: when no provider has this id
        """
        found = self._look().get(id)
        return found or self._known(id, self._file.read())

    def get_enabled(self, id: str) -> Provider:
        """Return a provider that chats may use.

        :raises ProviderNotFound: when no provider has this id
        :raises ProviderDisabled: when it is switched off
        """
        provider = self.get(id)
        if not provider.enabled:
            raise ProviderDisabled(
                f"The provider '{id}' is disabled.",
                hint=f"Enable it: PATCH /api/providers/{id} with "
                '{"enabled": true}, or start with --enable ' + id,
                details={"provider": id},
            )
        return provider

    def create(self, id: str, **values: Unpack[StoredProvider]) -> Provider:
        """Add a custom provider.

        :raises ProviderExists: when the id is taken
        """

        def change(stored: StoredProviders) -> None:
            if id in self._shipped or id in stored:
                raise ProviderExists(
                    f"There is a provider '{id}' already.",
                    hint=f"Change it with PATCH /api/providers/{id}, or choose another id.",
                    details={"provider": id},
                )
            stored[id] = {"name": id, **values}

        self._file.update(change)
        return self.get(id)

    def update(self, id: str, **values: Unpack[StoredProvider]) -> Provider:
        """Change some settings of a provider.

        A `base_url` on another server removes the API key: the key must not be sent to another server.
        """

        def change(stored: StoredProviders) -> None:
            current = self._known(id, stored)
            kept = stored.get(id, {})
            if not _same_server(values.get("base_url", current.base_url), current.base_url):
                kept = _only(kept, kept.keys() - _OF_THE_SERVER)
            stored[id] = {**kept, **values}

        self._file.update(change)
        return self.get(id)

    def replace(self, id: str, **values: Unpack[StoredProvider]) -> Provider:
        """Change all settings of a provider; a setting that is missing gets its default.

        A missing API key stays as it is, if `base_url` is on the same server: a client cannot send the key
        back, because it is never shown.
        """

        def change(stored: StoredProviders) -> None:
            current = self._known(id, stored)
            kept: StoredProvider = {}
            if _same_server(values["base_url"], current.base_url):
                kept = _only(stored.get(id, {}), _OF_THE_SERVER)
            shipped = self._shipped.get(id, {})
            defaults: StoredProvider = {
                "enabled": False,
                "model": shipped.get("model", ""),
                "kind": current.kind,
            }
            stored[id] = {**kept, **defaults, **values}

        self._file.update(change)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Delete a custom provider.

        :raises ProviderBuiltIn: for a provider that is shipped with the program
        """
        if id in self._shipped:
            raise ProviderBuiltIn(
                f"The provider '{id}' is shipped with the program and cannot be deleted.",
                hint=f'Disable it: PATCH /api/providers/{id} with {{"enabled": false}}',
                details={"provider": id},
            )

        def change(stored: StoredProviders) -> None:
            self._known(id, stored)
            del stored[id]

        self._file.update(change)

    def _look(self) -> dict[str, Provider]:
        """Return all providers, made anew when the file of changes has changed."""
        stored, known = self._file.read(), self._in_force
        if known is None or known[0] is not stored:
            merged = {id: self._merge(id, stored.get(id, {})) for id in {**self._shipped, **stored}}
            known = self._in_force = (stored, merged)
        return known[1]

    def _known(self, id: str, stored: StoredProviders) -> Provider:
        if id not in self._shipped and id not in stored:
            raise ProviderNotFound(
                f"There is no provider '{id[:64]}'.",
                hint="GET /api/providers lists them; POST /api/providers adds one.",
                details={"provider": id[:64], "available": list({**self._shipped, **stored})},
            )
        return self._merge(id, stored.get(id, {}))

    def _merge(self, id: str, stored: StoredProvider) -> Provider:
        shipped = self._shipped.get(id, {})
        for_this_run: StoredProvider = {"enabled": True} if id in self._enable else {}
        values = _only({**shipped, **for_this_run, **stored}, _STORED)
        source = "settings" if values.get("api_key") else ""
        variable = values.get("api_key_env", "")
        # A key from the environment is only sent to the shipped address.
        at_home = _same_server(values.get("base_url", ""), shipped.get("base_url", ""))
        if not source and at_home and (key := self._environ.get(variable)):
            source = variable
            values["api_key"] = key
        return Provider(id=id, custom=id not in self._shipped, api_key_source=source, **values)


def _only(values: StoredProvider, names: Collection[str]) -> StoredProvider:
    """Return the entries of *values* whose names are in *names*."""
    return cast("StoredProvider", {name: value for name, value in values.items() if name in names})


def _same_server(one: str, other: str) -> bool:
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def _check_stored(data: StoredProviders) -> None:
    try:
        for id, stored in data.items():
            StoredProviderSchema().load(stored)
            if not re.match(PROVIDER_ID, id):
                raise ValueError("not an id")
    except (ValidationError, AttributeError) as exc:
        raise ValueError("not an object of providers") from exc


def start_hint(provider: Provider) -> str:
    """Return a sentence on how to start *provider*; empty if that is unknown."""
    if provider.name != "Ollama":
        return ""
    if not _CONTAINER_MARK.exists():
        return "Start it with `ollama serve`, or this program with `make run`, which finds or starts one."
    port = urlsplit(provider.native_url).port or 11434
    return (
        "In a container, localhost is the container itself. For an Ollama in it, start it there, or "
        "start this program again with `make run`. For one outside, set base_url to "
        f"http://host.docker.internal:{port}/v1, run the container with "
        "--add-host=host.docker.internal:host-gateway and Ollama with OLLAMA_HOST=0.0.0.0."
    )

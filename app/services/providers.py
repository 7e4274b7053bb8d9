"""The providers: what is shipped, under what a person changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from app.errors import ProviderBuiltIn, ProviderDisabled, ProviderExists, ProviderNotFound
from app.schemas.providers import StoredProviderSchema
from app.services.json_file import Json, JsonFile


@dataclass(frozen=True)
class Provider:
    """One provider with its settings in force."""

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
        """The key's last four characters; none of a key so short that they would give it away."""
        return self.api_key[-4:] if len(self.api_key) >= 12 else ""


_STORED = frozenset(f.name for f in fields(Provider)) - {"id", "custom", "api_key_source"}


class ProviderStore:
    """The providers, by id.

    :param shipped: the `providers.json` of the program, read only
    :param path: the person's changes
    :param enable: ids that are enabled for this run, unless the person said otherwise
    :param environ: where API keys may come from
    """

    def __init__(
        self, shipped: Path, path: Path, enable: tuple[str, ...], environ: Mapping[str, str | None]
    ) -> None:
        self._shipped: dict[str, Json] = json.loads(shipped.read_text(encoding="utf-8"))
        self._file = JsonFile(path, _check_stored)
        self._enable = enable
        self._environ = environ

    @property
    def damage(self) -> str:
        """Say what is wrong with the kept changes, if anything is."""
        self._file.read()
        return self._file.damage

    def all(self) -> dict[str, Provider]:
        """Return every provider by id, the shipped ones first."""
        stored = self._file.read()
        return {id: self._merge(id, stored.get(id, {})) for id in [*self._shipped, *stored]}

    def get(self, id: str) -> Provider:
        """Return one provider.

        :raises ProviderNotFound: when there is none of that id
        """
        stored = self._file.read()
        if id not in self._shipped and id not in stored:
            raise ProviderNotFound(
                f"There is no provider '{id}'.",
                hint="GET /api/providers lists them; POST /api/providers adds one.",
                details={"provider": id, "available": list(self.all())},
            )
        return self._merge(id, stored.get(id, {}))

    def get_enabled(self, id: str) -> Provider:
        """Return one provider that chats may use.

        :raises ProviderNotFound: when there is none of that id
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

    def create(self, id: str, **values: Any) -> Provider:
        """Add a provider of one's own.

        :raises ProviderExists: when the id is taken
        """

        def change(stored: Json) -> None:
            if id in self._shipped or id in stored:
                raise ProviderExists(
                    f"There is a provider '{id}' already.",
                    hint=f"Change it with PATCH /api/providers/{id}, or choose another id.",
                    details={"provider": id},
                )
            stored[id] = {"name": id, **values}

        self._file.update(change)
        return self.get(id)

    def update(self, id: str, **values: Any) -> Provider:
        """Change some settings of a provider."""
        self.get(id)
        self._file.update(lambda stored: stored.setdefault(id, {}).update(values))
        return self.get(id)

    def replace(self, id: str, **values: Any) -> Provider:
        """Change all settings of a provider; what is not given falls back to its default.

        The key stays as it is when none is given: it is never shown, so it cannot be sent back.
        """
        current = self.get(id)

        def change(stored: Json) -> None:
            kept = {
                key: value
                for key, value in stored.get(id, {}).items()
                if key in {"api_key", "status", "last_checked"}
            }
            defaults = {"enabled": False, "model": "", "kind": current.kind}
            stored[id] = {**kept, **defaults, **values}

        self._file.update(change)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Remove a provider of one's own.

        :raises ProviderBuiltIn: for a shipped one
        """
        self.get(id)
        if id in self._shipped:
            raise ProviderBuiltIn(
                f"The provider '{id}' is shipped with the program and cannot be deleted.",
                hint=f'Disable it: PATCH /api/providers/{id} with {{"enabled": false}}',
                details={"provider": id},
            )
        self._file.update(lambda stored: stored.pop(id, None))

    def _merge(self, id: str, stored: Json) -> Provider:
        for_this_run = {"enabled": True} if id in self._enable else {}
        values = {**self._shipped.get(id, {}), **for_this_run, **stored}
        values = {key: value for key, value in values.items() if key in _STORED}
        source = "settings" if values.get("api_key") else ""
        variable = values.get("api_key_env", "")
        if not source and (key := self._environ.get(variable)):
            source = variable
            values["api_key"] = key
        return Provider(id=id, custom=id not in self._shipped, api_key_source=source, **values)


def _check_stored(data: Json) -> None:
    try:
        for stored in data.values():
            StoredProviderSchema().load(stored)
    except (ValidationError, AttributeError) as exc:
        raise ValueError("not an object of providers") from exc

"""The registry that models come from: what a model consists of, before it is pulled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import requests
from marshmallow import ValidationError

from app.errors import PullFailed
from app.model_name import ModelName
from app.schemas.registry import ManifestSchema
from app.services.upstream import invalid_response, reject, translated
from app.settings import Timeouts

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_MANIFEST_LIMIT = 1_000_000  # bytes; real ones have about one thousand


@dataclass(frozen=True)
class Layer:
    """A part of a model: its weights, template, parameters, licence or configuration."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True)
class Manifest:
    """What a model consists of.

    :param digest: ``sha256:`` of the manifest's own bytes: the digest that Ollama lists for the model
    """

    digest: str
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


class RegistryService:
    """The registries, by the host in a model's name (``GET /v2/<namespace>/<model>/manifests/<tag>``)."""

    def __init__(self, session: requests.Session, timeouts: Timeouts) -> None:
        self._session = session
        self._timeouts = timeouts

    def manifest(self, name: ModelName, *, insecure: bool = False) -> Manifest:
        """Return what *name* consists of in its registry.

        :raises PullFailed: when the registry has no such model
        """
        base = f"{'http' if insecure else 'https'}://{name.host}"
        url = f"{base}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        timeout = (self._timeouts.connect, self._timeouts.list)
        with translated(name.host, base):
            response = self._session.get(url, headers={"Accept": MANIFEST_TYPE}, timeout=timeout, stream=True)
            try:
                body = response.raw.read(_MANIFEST_LIMIT + 1, decode_content=True)
            finally:
                response.close()
        if response.status_code == 404:
            raise PullFailed(
                f"The registry {name.host} has no model '{name}'.",
                hint="Check the name and tag at https://ollama.com/library",
                details={"model": str(name)},
            )
        if response.status_code != 200:
            reject(name.host, response.status_code, "")
        return _parse(name, body)


def _parse(name: ModelName, body: bytes) -> Manifest:
    try:
        loaded: dict[str, Any] = ManifestSchema().loads(body)
    except (ValidationError, ValueError) as exc:
        raise invalid_response(f"The registry {name.host}", "it is no manifest") from exc
    entries = [loaded["config"], *loaded["layers"]]
    return Manifest(
        digest=f"sha256:{hashlib.sha256(body).hexdigest()}",
        layers=tuple(Layer(e["digest"], e["size"], e["media_type"]) for e in entries),
    )

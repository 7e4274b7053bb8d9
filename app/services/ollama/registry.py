"""Ask the registries of models for manifests and layers, without pulling a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import requests

from app import redirects
from app.config import Timeouts
from app.errors import ModelNotInRegistry
from app.manifest import MANIFEST_TYPE, CorruptManifestError, Layer, Manifest, digest_of
from app.model_name import ModelName
from app.upstream.failures import invalid_response, rejection
from app.upstream.json import parse
from app.upstream.session import UpstreamSession, parts, translated
from app.upstream.threaded import within

MANIFEST_LIMIT = 1_000_000  # bytes; a real manifest has about one thousand
_MAX_LAYERS = 1000
_GO_ORDER = ("mediaType", "digest", "size", "from", "name")


@dataclass(frozen=True)
class ManifestSummary:
    """The layers of a model, and the digests under which Ollama may list the model.

    :param digest: the digest of the manifest's bytes, which Ollama lists as the model's digest
    :param layers: the layers, of which the first is the config
    :param other_digests: the digests that Ollama before 0.19 lists, because it encodes the manifest again
    """

    digest: str
    layers: tuple[Layer, ...]
    other_digests: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> ManifestSummary:
        """Parse a manifest; leave ``other_digests`` empty.

        :raises CorruptManifestError: when *raw* is no manifest, or has too many layers
        """
        manifest = Manifest.parse(raw)
        layers = (manifest.config, *manifest.layers)
        if len(manifest.layers) > _MAX_LAYERS:
            raise CorruptManifestError("it has too many layers")
        if not all(layer.media_type for layer in layers):
            raise CorruptManifestError("a layer has no media type")
        return cls(manifest.digest, layers)

    def is_same(self, digest: str) -> bool:
        """Tell whether an installed model with *digest* has this manifest."""
        return digest in (self.digest, *self.other_digests)

    @property
    def size(self) -> int:
        """The bytes of all layers; a layer that the manifest names twice counts once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


class RegistryService:
    """Asks the registry whose host is in a model's name.

    :param timeouts: returns the timeouts in force
    """

    def __init__(self, session: UpstreamSession, timeouts: Callable[[], Timeouts]) -> None:
        self._session = session
        self._timeouts = timeouts

    def manifest(self, name: ModelName, *, insecure: bool = False) -> ManifestSummary:
        """Return the manifest of *name* (``GET /v2/<namespace>/<model>/manifests/<tag>``).

        :param insecure: whether to use plain HTTP
        :raises ModelNotInRegistry: when the registry has no such model
        """
        status, body = self._get(
            name, f"manifests/{name.tag}", MANIFEST_LIMIT + 1, {"Accept": MANIFEST_TYPE}, insecure=insecure
        )
        if status == 404:
            raise ModelNotInRegistry(
                f"The registry {name.host} has no model '{name}'.",
                hint="Check the name and tag at https://ollama.com/library",
                details={"model": str(name)},
            )
        if status != 200:
            raise rejection(name.host, status, "")
        return _parse(name, body)

    def blob_start(self, name: ModelName, digest: str, limit: int, *, insecure: bool = False) -> bytes:
        """Return the first *limit* bytes of a layer, or all its bytes (``GET .../blobs/<digest>``)."""
        headers = {"Range": f"bytes=0-{limit - 1}"}
        status, body = self._get(name, f"blobs/{digest}", limit, headers, insecure=insecure)
        if status not in {200, 206}:
            raise rejection(name.host, status, "")
        return body

    def _get(
        self, name: ModelName, path: str, limit: int, headers: dict[str, str], *, insecure: bool
    ) -> tuple[int, bytes]:
        """Return the status and at most *limit* bytes of an answer, within ``list`` of the timeouts."""
        base = f"{'http' if insecure else 'https'}://{name.host}"
        url = f"{base}/v2/{name.namespace}/{name.model}/{path}"
        timeouts = self._timeouts()
        timeout = (timeouts.connect, timeouts.list)

        def call() -> tuple[int, bytes]:
            options: dict[str, Any] = {"headers": headers, "timeout": timeout, "stream": True}
            response = self._session.get(url, allow_redirects=False, **options)
            if response.is_redirect:
                response = self._redirected(name, response, options)
            with closing(response):
                return response.status_code, _start(response, limit)

        with translated(name.host, base):
            return within(timeouts.list, call)

    def _redirected(
        self, name: ModelName, response: requests.Response, options: dict[str, Any]
    ) -> requests.Response:
        with redirects.RegistrySession(public=True) as public:  # closing it leaves the open answer open
            try:
                return redirects.follow(response, self._session, public, **options)
            except redirects.RedirectRefusedError as exc:
                raise invalid_response(f"The registry {name.host}", str(exc)) from exc


def _start(response: requests.Response, size: int) -> bytes:
    """Return the first *size* bytes of a body, or all its bytes."""
    found = bytearray()
    for part in parts(response, sys.maxsize):  # the loop has its own limit
        found += part
        if len(found) >= size:
            break
    return bytes(found[:size])


def re_encoded(manifest: dict[str, Any]) -> bytes:
    """Encode *manifest* as Ollama before 0.19 does: only the fields it knows, in Go's order."""
    entries = [
        {key: entry[key] for key in _GO_ORDER if entry.get(key) or key in _GO_ORDER[:3]}
        for entry in (manifest["config"], *manifest["layers"])
    ]
    document = {
        "schemaVersion": manifest.get("schemaVersion", 0),
        "mediaType": manifest.get("mediaType", ""),
        "config": entries[0],
        "layers": entries[1:],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _parse(name: ModelName, body: bytes) -> ManifestSummary:
    try:
        summary = ManifestSummary.parse(body)
        older = re_encoded(parse(body))
    except ValueError as exc:
        raise invalid_response(f"The registry {name.host}", "it is no manifest") from exc
    return replace(summary, other_digests=(digest_of(older), digest_of(older + b"\n")))

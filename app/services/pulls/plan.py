"""Plan a pull: the bytes to download, the disk space and the memory, from the registry's manifest."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from app import gguf
from app.config import Timeouts, is_loopback
from app.errors import DiskFull, ServiceError
from app.manifest import Layer
from app.model_name import ModelName
from app.schemas.plan import Plan, PlanDisk, PlanLayer, PlanMemory
from app.services.ollama import (
    LocalStore,
    ManifestSummary,
    ModelFolders,
    OllamaServers,
    OllamaService,
    RegistryService,
    check_name,
    check_registry,
    find_model,
    partial_bytes,
)
from app.services.pulls.memory_need import available_bytes, needed_bytes
from app.services.settings import SettingsStore
from app.upstream.json import parse

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 4096  # tokens: Ollama's default with less than 24 GiB of graphics memory
_HEADER_LIMIT = 256 << 10  # bytes from the start of the weights: enough for the metadata that is needed
_TEXT_LIMIT = 64 << 10  # bytes; a larger licence or configuration is not downloaded
_LOADED_KINDS = {"model", "projector", "adapter"}


@dataclass(frozen=True)
class Destination:
    """The Ollama server that pulls, and its models folder if that is on this machine."""

    ollama: OllamaService
    folder: LocalStore | None

    def missing(self, manifest: ManifestSummary) -> list[Layer]:
        """Return the layers of *manifest* that the server does not have, each once."""
        has_blob = self.folder.has_blob if self.folder else self.ollama.has_blob
        layers = {layer.digest: layer for layer in manifest.layers}
        return [layer for layer in layers.values() if not has_blob(layer.digest)]

    def disk(self, missing: list[Layer]) -> PlanDisk | None:
        """Return whether the *missing* layers fit on the disk; None if Ollama runs on another machine."""
        if self.folder is None:
            return None
        blobs = self.folder.path / "blobs"
        needed = sum(max(0, layer.size - partial_bytes(blobs, layer.digest)) for layer in missing)
        free = self.folder.free_bytes()
        return {"free_bytes": free, "needed_bytes": needed, "fits": needed <= free}

    def installed(self, name: ModelName) -> str | None:
        """Return the digest of the installed model *name*; None if it is not installed."""
        found = find_model(self.ollama.list()["models"], str(name))
        return found["digest"] if found else None

    @property
    def available_memory(self) -> int | None:
        """The free memory in bytes; None if Ollama runs on another machine."""
        is_here = is_loopback(urlsplit(self.ollama.provider.native_url).hostname or "")
        return available_bytes() if is_here else None


@dataclass(frozen=True)
class PlanService:
    """Plans pulls, and checks them before they start.

    :param hasty_registry: the same as *registry*, with short timeouts
    :param allowed: the hosts that models may come from; a registry on this machine is always allowed
    """

    ollamas: OllamaServers
    folders: ModelFolders
    registry: RegistryService
    hasty_registry: RegistryService
    settings: SettingsStore
    allowed: tuple[str, ...]

    def destination(self, timeouts: Timeouts | None = None) -> Destination:
        """Return the server that pulls."""
        ollama = self.ollamas.main(timeouts)
        return Destination(ollama, self.folders.find(ollama))

    def allowed_name(self, model: str, *, insecure: bool) -> ModelName:
        """Parse the name *model*, and check its registry.

        :raises InvalidModelName: when Ollama would not accept the name
        :raises RegistryNotAllowed: when models may not come from that registry
        """
        name = check_name(model)
        check_registry(name.host, insecure=insecure, allowed=self.allowed)
        return name

    def plan(self, model: str, *, insecure: bool = False, num_ctx: int | None = None) -> Plan:
        """Return the plan of a pull of *model*.

        :raises ModelNotInRegistry: when the registry does not have the model
        """
        name = self.allowed_name(model, insecure=insecure)
        destination = self.destination()
        installed = destination.installed(name)
        manifest = self.registry.manifest(name, insecure=insecure)
        fetch = _Fetch(self.registry, name, insecure)
        missing = destination.missing(manifest)
        wanted = _required_version(fetch.text(manifest, "config"))
        return {
            "model": str(name),
            "digest": manifest.digest,
            "size": manifest.size,
            "download_bytes": total(missing),
            "layers": [_layer(layer, present=layer not in missing) for layer in manifest.layers],
            "installed": installed is not None,
            "current": installed is not None and manifest.is_same(installed),
            "disk": destination.disk(missing),
            "memory": _memory(manifest, fetch, num_ctx or DEFAULT_CONTEXT, destination.available_memory),
            "license": fetch.first_line(manifest, "license"),
            "requires": wanted,
            "version_ok": is_new_enough(destination.ollama.version(), wanted) if wanted else None,
        }

    def check_disk(self, name: ModelName, *, insecure: bool) -> None:
        """Check that the model fits on the disk; skip the check when the registry is slow or fails.

        :raises DiskFull: when the model does not fit
        """
        try:
            destination = self.destination(self.settings.hasty_timeouts())
            if destination.folder is None:
                return
            missing = destination.missing(self.hasty_registry.manifest(name, insecure=insecure))
        except ServiceError as exc:  # the pull itself reports the error
            log.info("the disk is not checked: %s", exc.message)
            return
        disk = destination.disk(missing)
        if disk and not disk["fits"]:
            raise DiskFull(
                f"The model '{name}' does not fit on the disk: the download needs "
                f"{gigabytes(disk['needed_bytes'])}, and {gigabytes(disk['free_bytes'])} are free.",
                hint='Free some disk space, or pull nevertheless with "force": true.',
                details={"model": str(name), "path": str(destination.folder.path), **disk},
            )


def _memory(manifest: ManifestSummary, fetch: _Fetch, num_ctx: int, available: int | None) -> PlanMemory:
    weights = total([layer for layer in manifest.layers if layer.kind in _LOADED_KINDS])
    needed, estimated = needed_bytes(weights, fetch.header(manifest), num_ctx)
    return {
        "needed_bytes": needed,
        "num_ctx": num_ctx,
        "available_bytes": available,
        "fits": None if available is None else needed <= available,
        "estimated": estimated,
    }


def _required_version(config: str) -> str | None:
    """Return the oldest Ollama version that can run the model; None if its *config* names none."""
    try:
        wanted = parse(config).get("requires")
    except (ValueError, AttributeError):
        return None
    return wanted if isinstance(wanted, str) and wanted else None


@dataclass(frozen=True)
class _Fetch:
    """Reads small parts of a model from its registry; a part that cannot be read is empty."""

    registry: RegistryService
    name: ModelName
    insecure: bool

    def header(self, manifest: ManifestSummary) -> gguf.Header | None:
        """Return the metadata in the first 256 KiB of the weights; None if they cannot be read."""
        weights = next((layer for layer in manifest.layers if layer.kind == "model"), None)
        try:
            return gguf.parse_start(self._start(weights, _HEADER_LIMIT)) if weights else None
        except ValueError:
            return None

    def text(self, manifest: ManifestSummary, kind: str) -> str:
        """Return the text of the layer of *kind*; an empty one if the layer is large."""
        layer = next((layer for layer in manifest.layers if layer.kind == kind), None)
        if layer is None or layer.size > _TEXT_LIMIT:
            return ""
        return self._start(layer, layer.size).decode("utf-8", "replace")

    def first_line(self, manifest: ManifestSummary, kind: str) -> str | None:
        """Return the first non-blank line of the layer of *kind*, cut to 200 characters."""
        lines = (line.strip() for line in self.text(manifest, kind).splitlines())
        return next((line[:200] for line in lines if line), None)

    def _start(self, layer: Layer, limit: int) -> bytes:
        try:
            return self.registry.blob_start(self.name, layer.digest, limit, insecure=self.insecure)
        except ServiceError:
            return b""


def total(layers: list[Layer]) -> int:
    """Return the sum of the sizes of *layers*, in bytes."""
    return sum(layer.size for layer in layers)


def is_new_enough(version: str, wanted: str) -> bool | None:
    """Tell whether *version* is *wanted* or newer; None if one of them is not a version."""
    have, want = _numbers(version), _numbers(wanted)
    return have >= want if have and want else None


def gigabytes(size: int) -> str:
    """Return a *size* in bytes as text, in GB or MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _numbers(version: str) -> list[int]:
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9}){0,3})", version)
    numbers = [int(part) for part in found[1].split(".")] if found else []
    return numbers + [0] * (4 - len(numbers)) if numbers else []


def _layer(layer: Layer, *, present: bool) -> PlanLayer:
    return {"digest": layer.digest, "size": layer.size, "kind": layer.kind, "present": present}

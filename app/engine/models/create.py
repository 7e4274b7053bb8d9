"""``POST /api/create``: create a model from another model, or from uploaded GGUF files."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from app import gguf
from app.engine.models import details
from app.manifest import CONFIG_TYPE, LAYER_TYPE, Layer, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from app.engine.gojson import Object
    from app.engine.models.store import ModelStore
    from app.model_name import ModelName

_TEXTS = ("template", "system")
CHATML = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
CHATML_STOP = ["<|im_start|>", "<|im_end|>"]


SUCCESS = {"status": "success"}


class CreateError(ValueError):
    """The model cannot be created; the text is Ollama's message."""


def config_blob(store: ModelStore, header: gguf.Header, layers: Sequence[Layer], parent: str = "") -> Layer:
    """Store the config blob of a model that has these *layers*."""
    config = details.weights_config(header) | {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    if parent:
        config["parent_model"] = parent
    return store.add_bytes(CONFIG_TYPE, json.dumps(config, separators=(",", ":")).encode())


def check_files(files: Object) -> None:
    """Raise CreateError unless every key is a relative path (``create_bad_gguf_ext``)."""
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise CreateError("file path must be relative")


def create(store: ModelStore, name: ModelName, origin: ModelName | None, body: Object) -> Iterator[Object]:
    """Create the model *name*; yield the progress lines.

    :raises CreateError: when the model cannot be created
    """
    source = store.find(origin) if origin else None
    if origin and source is None:
        raise CreateError(f"model '{origin}' not found")
    if source is not None:
        layers, parent = _weights_first(source.manifest.layers), str(source.name)
        yield {"status": f"using existing layer {layers[0].digest}"}
    else:
        yield {"status": "parsing GGUF"}
        layers, parent = _from_files(store, body["files"]), ""
        yield {"status": f"creating new layer {layers[0].digest}"}
        if not body.get("template") and _speaks_chatml(store, layers[0]):
            yield {"status": "using autodetected template chatml"}
            body = {"template": CHATML, "parameters": {"stop": CHATML_STOP}} | body
    for layer in _changed(store, layers, body):
        known = source is not None and layer in source.manifest.layers
        yield {"status": f"{'using existing' if known else 'creating new'} layer {layer.digest}"}
    manifest = Manifest.build(_config(store, layers, parent), layers)
    former = store.find(name)
    with store.pinned(manifest):  # another delete or pull must not remove its blobs meanwhile
        yield {"status": "writing manifest"}
        store.write(name, manifest)
    if former is not None:
        store.prune(former.manifest)
    yield SUCCESS


def _config(store: ModelStore, layers: list[Layer], parent: str) -> Layer:
    try:
        header = gguf.read_blob(store.blob_path(layers[0].digest))
    except (OSError, ValueError) as exc:
        raise CreateError("the weights of the model are missing or damaged") from exc
    return config_blob(store, header, layers, parent)


def _from_files(store: ModelStore, files: Object) -> list[Layer]:
    layers = []
    for digest in files.values():
        try:
            path = store.blob_path(str(digest))
            header = gguf.read(path)
            header.check_complete()
        except FileNotFoundError as exc:
            raise CreateError(f"open {exc.filename}: no such file or directory") from exc
        except ValueError as exc:
            raise CreateError(str(exc)) from exc
        kind = "projector" if header.architecture == "clip" else "model"
        layers.append(Layer(str(digest), path.stat().st_size, LAYER_TYPE + kind))
    layers = _weights_first(layers)
    if layers[0].media_type != LAYER_TYPE + "model":
        raise CreateError("no model weights among the files")
    return layers


def _weights_first(layers: Iterable[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: layer.media_type != LAYER_TYPE + "model")


def _speaks_chatml(store: ModelStore, weights: Layer) -> bool:
    header = gguf.read_blob(store.blob_path(weights.digest))
    return "<|im_start|>" in str(header.metadata.get("tokenizer.chat_template", ""))


def _changed(store: ModelStore, layers: list[Layer], body: Object) -> list[Layer]:
    """Replace the layers that *body* sets in *layers*, and return all layers but the weights."""
    for kind in _TEXTS:
        if text := body.get(kind):
            _replace(layers, store.add_text(kind, str(text)))
    if license_text := body.get("license"):
        texts = license_text if isinstance(license_text, list) else [license_text]
        _replace(layers, store.add_text("license", "\n".join(map(str, texts))))
    if messages := body.get("messages"):
        _replace(layers, store.add_text("messages", json.dumps(messages)))
    if parameters := body.get("parameters"):
        former = next((layer for layer in layers if layer.media_type == LAYER_TYPE + "params"), None)
        merged = json.loads(store.read_text(former) or "{}") | parameters
        _replace(layers, store.add_text("params", json.dumps(merged, separators=(",", ":"))))
    return layers[1:]


def _replace(layers: list[Layer], layer: Layer) -> None:
    layers[:] = [entry for entry in layers if entry.media_type != layer.media_type]
    layers.append(layer)

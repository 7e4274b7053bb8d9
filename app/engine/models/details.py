"""The description of an installed model: ``details``, ``capabilities``, ``parameters``, Modelfile."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from app import gguf
from app.engine import gojson
from app.engine.models.store import MAX_TEXT

if TYPE_CHECKING:
    from pathlib import Path

    from app.engine.gojson import Object
    from app.engine.models.store import Model, ModelStore
    from app.manifest import Manifest

# llama.cpp's enum llama_ftype
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
_SHOWN_APART = {"general.name", "tokenizer.chat_template"}  # model_info lacks them, as in Ollama


def header_of(store: ModelStore, manifest: Manifest) -> gguf.Header:
    """Read the header of the model's weights.

    :raises FileNotFoundError: when the blob is gone
    :raises ValueError: when the blob is damaged
    """
    layer = manifest.layer("model")
    if layer is None:
        raise ValueError("the model has no weights that this engine can run")
    return gguf.read_blob(store.blob_path(layer.digest))


def config_of(store: ModelStore, manifest: Manifest) -> Object:
    """Read the config blob; empty when the blob is gone or damaged."""
    return _json_object(store.blob_path(manifest.config.digest))


def parameters_of(store: ModelStore, manifest: Manifest) -> Object:
    """Read the params layer (``num_ctx``, ``stop`` ...)."""
    layer = manifest.layer("params")
    return _json_object(store.blob_path(layer.digest)) if layer else {}


def messages_of(store: ModelStore, manifest: Manifest) -> list[Object]:
    """Read the MESSAGE lines of the Modelfile, which come before each conversation."""
    try:
        messages = gojson.loads((store.read_text(manifest.layer("messages")) or "[]").encode())
    except (OSError, ValueError):
        return []
    entries = messages if isinstance(messages, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("content"), str)]


def _json_object(path: Path) -> Object:
    try:
        return _read_json(path)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=256)
def _read_json(path: Path) -> Object:  # cached: a blob never changes, because its name is its digest
    if path.stat().st_size > MAX_TEXT:
        raise ValueError("the blob is too large for JSON")
    value = gojson.loads(path.read_bytes())
    return value if isinstance(value, dict) else {}


def details(store: ModelStore, manifest: Manifest, *, parent: bool = False) -> Object:
    """Build the ``details`` object out of the config blob."""
    config = config_of(store, manifest)
    layer = manifest.layer("model")
    origin = config.get("parent_model", "") if parent and layer else ""
    return {
        "parent_model": origin,
        "format": config.get("model_format", ""),
        "family": config.get("model_family", ""),
        "families": config.get("model_families") or None,
        "parameter_size": config.get("model_type", ""),
        "quantization_level": config.get("file_type", ""),
    }


def weights_config(header: gguf.Header) -> Object:
    """Build the part of a config blob that describes the weights."""
    file_type = header.metadata.get("general.file_type")
    return {
        "model_format": "gguf",
        "model_family": header.architecture,
        "model_families": [header.architecture],
        "model_type": human_number(header.parameter_count),
        "file_type": _FILE_TYPES.get(file_type if isinstance(file_type, int) else -1, "unknown"),
    }


def human_number(count: int) -> str:
    """Shorten a number of weights as Ollama does: 134.52M, 1.2B."""
    for unit, letter, places in ((10**12, "T", 1), (10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            return f"{count / unit:.{0 if count % unit == 0 else places}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def capabilities(store: ModelStore, manifest: Manifest) -> list[str]:
    """List what the model can do, by its weights and its template."""
    header = header_of(store, manifest)
    template = store.read_text(manifest.layer("template"))
    chat_template = template or str(header.metadata.get("tokenizer.chat_template", ""))
    embeds = header.of_architecture("pooling_type") is not None
    found = ["embedding"] if embeds else ["completion"]
    if header.of_architecture("vision.block_count") or manifest.layer("projector"):
        found.append("vision")
    if ".Tools" in template or (not template and "tools" in chat_template):
        found.append("tools")
    if ".Suffix" in template:
        found.append("insert")
    if ".Thinking" in template or "<think>" in chat_template:
        found.append("thinking")
    return found


def show(store: ModelStore, model: Model, *, verbose: bool = False) -> Object:
    """Build the answer of ``POST /api/show``.

    :raises FileNotFoundError: when a blob is gone
    :raises ValueError: when a blob is damaged
    """
    manifest = model.manifest
    header = header_of(store, manifest)
    if verbose and (layer := manifest.layer("model")):
        header = gguf.read(store.blob_path(layer.digest), arrays=True)
    known = header.metadata | {"general.parameter_count": header.parameter_count}
    answer = {
        "license": store.read_text(manifest.layer("license")),
        "modelfile": modelfile(store, model),
        "parameters": "\n".join(_parameter_lines(parameters_of(store, manifest))),
        "template": store.read_text(manifest.layer("template")),
        "system": store.read_text(manifest.layer("system")),
        "details": details(store, manifest, parent=True),
        "messages": messages_of(store, manifest),
        "model_info": {key: known[key] for key in sorted(known) if key not in _SHOWN_APART},
        "tensors": [
            {"name": tensor.name, "type": tensor.type, "shape": tensor.shape} for tensor in header.tensors
        ],
        "capabilities": capabilities(store, manifest),
    }
    return {key: value for key, value in answer.items() if value}


def _pairs(parameters: Object) -> list[tuple[str, Any]]:
    """Return one pair for each value of a list, such as ``stop``."""
    return [
        (key, value)
        for key, values in parameters.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _parameter_lines(parameters: Object) -> list[str]:
    return [f"{key:<30} {json.dumps(value, ensure_ascii=False)}" for key, value in _pairs(parameters)]


def modelfile(store: ModelStore, model: Model) -> str:
    """Return the Modelfile that would create the model again, as ``ollama show`` does."""
    manifest = model.manifest
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {model.name}\n",
    ]
    for kind, command in (("model", "FROM"), ("projector", "FROM"), ("adapter", "ADAPTER")):
        if layer := manifest.layer(kind):
            lines.append(f"{command} {store.blob_path(layer.digest)}")
    texts = {kind: store.read_text(manifest.layer(kind)) for kind in ("template", "system")}
    lines += [f"{kind.upper()} {_quote(text)}" for kind, text in texts.items() if text]
    for key, value in _pairs(parameters_of(store, manifest)):
        lines.append(f"PARAMETER {key} {_quote(_plain(value))}")
    if text := store.read_text(manifest.layer("license")):
        lines.append(f'LICENSE """{text}"""')
    lines += [
        f"MESSAGE {message.get('role')} {_quote(str(message.get('content')))}"
        for message in messages_of(store, manifest)
    ]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _quote(text: str) -> str:
    if "\n" not in text and text == text.strip(" "):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'

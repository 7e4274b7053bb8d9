"""Fixtures of the engine's tests. Tests that change the engine or its models use `own_engine`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.engine.models.seed import seed
from app.engine.models.store import ModelStore
from tests.engine.process import EngineProcess
from tests.registry import Registry

MODEL = "smollm2:135m"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store without models."""
    return ModelStore(tmp_path / "models")


@pytest.fixture
def seeded_store(store: ModelStore) -> ModelStore:
    """A store with the bundled model."""
    seed(store)
    return store


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that serves nothing yet."""
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """A running engine with the bundled model, shared by all tests that do not change it."""
    with EngineProcess(tmp_path_factory.mktemp("engine") / "models") as engine:
        yield engine


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[EngineProcess]:
    """A running engine with the bundled model, for one test that may change or damage it."""
    with EngineProcess(tmp_path / "models") as engine:
        yield engine

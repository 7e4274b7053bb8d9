"""How to start a provider that should run on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.services.providers import store as module
from app.services.providers.store import Provider, start_hint

OLLAMA = Provider(id="ollama", name="Ollama", kind="ollama", base_url="http://localhost:11500/v1")


def test_ollama_is_started_by_its_own_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_CONTAINER_MARK", tmp_path / "missing")

    assert "`ollama serve`" in start_hint(OLLAMA)


def test_in_a_container_the_host_has_another_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_CONTAINER_MARK", tmp_path)

    assert "http://host.docker.internal:11500/v1" in start_hint(OLLAMA)


def test_of_another_provider_it_is_not_known() -> None:
    assert start_hint(Provider(id="mine", name="Mine")) == ""

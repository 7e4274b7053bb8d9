"""Tests of the stores of settings and providers, of which each process has its own."""

from pathlib import Path

from app.config import ROOT, Timeouts
from app.services.providers import ProviderStore
from app.services.settings import SettingsStore


def _settings(folder: Path) -> SettingsStore:
    return SettingsStore(folder / "settings.json", Timeouts())


def _providers(folder: Path) -> ProviderStore:
    return ProviderStore(ROOT / "providers.json", folder / "providers.json", (), {})


def test_settings_are_made_again_only_when_the_file_changed(tmp_path: Path) -> None:
    ours, theirs = _settings(tmp_path), _settings(tmp_path)
    before = ours.all()
    assert ours.all() is before

    theirs.update(temperature=0.5, timeouts={"connect": 7})

    assert ours.all()["temperature"] == 0.5
    assert ours.timeouts.connect == 7
    assert before["temperature"] is None


def test_settings_return_to_the_defaults_without_the_file(tmp_path: Path) -> None:
    ours = _settings(tmp_path)
    ours.update(temperature=0.5)

    (tmp_path / "settings.json").unlink()

    assert ours.all()["temperature"] is None


def test_providers_are_those_of_the_file_after_each_change(tmp_path: Path) -> None:
    ours, theirs = _providers(tmp_path), _providers(tmp_path)
    assert not ours.get("openai").enabled

    theirs.update("openai", enabled=True)
    theirs.create("mine", base_url="http://mine.test/v1")

    assert ours.get("openai").enabled
    assert ours.all()["mine"].custom


def test_provider_that_is_enabled_for_a_run_is_enabled_at_once(tmp_path: Path) -> None:
    ours = _providers(tmp_path)
    assert not ours.get("ollama").enabled

    ours.enable("ollama")

    assert ours.get("ollama").enabled


def test_changed_list_of_providers_changes_no_store(tmp_path: Path) -> None:
    ours = _providers(tmp_path)

    ours.all().clear()

    assert "ollama" in ours.all()

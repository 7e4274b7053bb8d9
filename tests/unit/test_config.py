"""The settings of the process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from app import logs
from app.config import Config, ConfigError, is_loopback


def test_from_env_reads_variables_and_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKEND_PORT", "9000")
    monkeypatch.setenv("BACKEND_ALLOWED_HOSTS", "a.example,b.example")
    (tmp_path / ".env").write_text("BACKEND_IDLE_TIMEOUT=7\nBACKEND_PORT=1\nGROQ_API_KEY=gsk\n")

    config = Config.from_env()

    assert config.port == 9000  # the environment wins over the file
    assert config.timeouts.idle == 7
    assert config.allowed_hosts == ("a.example", "b.example")
    assert config.host == "127.0.0.1"
    assert config.environ["GROQ_API_KEY"] == "gsk"


def test_from_env_names_every_fault_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKEND_PORT", "eighty")
    monkeypatch.setenv("BACKEND_IDLE_TIMEOUT", "0")
    monkeypatch.setenv("BACKEND_LOG_LEVEL", "LOUD")

    with pytest.raises(ConfigError) as caught:
        Config.from_env()

    for name in ("BACKEND_PORT", "BACKEND_IDLE_TIMEOUT", "BACKEND_LOG_LEVEL"):
        assert name in str(caught.value)


def test_repr_hides_the_key() -> None:
    assert "secret" not in repr(Config(api_key="secret"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("x.localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_is_loopback_is_true_for_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("OPENAI_API_KEY=sk-x", True),
        ("BACKEND_DATABASE_URL=postgresql://me:word@host/name", True),
        ("HF_TOKEN=x", True),
        ("OPENAI_API_KEY=", False),
        ("BACKEND_PORT=8002", False),
        ("BACKEND_REDIS_URL=redis://localhost:6379/0", False),
    ],
)
def test_from_env_knows_whether_the_env_file_holds_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, holds: bool
) -> None:
    (tmp_path / ".env").write_text(f"{line}\n")
    monkeypatch.chdir(tmp_path)

    config = Config.from_env()

    assert config.env_file == (tmp_path / ".env" if holds else None)


def test_from_env_says_when_the_env_file_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="cannot be read: it is not UTF-8"):
        Config.from_env()


@pytest.mark.parametrize(
    "key", [" ", "\t", "two words", " leading", "trailing ", "schl\u00fcssel", "a\x00b", "a\nb"]
)
def test_key_that_no_client_can_send_is_refused(
    key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {**os.environ, "BACKEND_API_KEY": key})

    with pytest.raises(ConfigError, match="BACKEND_API_KEY: A key consists of") as caught:
        Config.from_env()

    assert key.strip() == "" or key not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "short"), [("", False), ("secret", True), ("x" * 19, True), ("x" * 20, False)]
)
def test_short_key_is_noticed(
    key: str, short: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure(Config(api_key=key))

    assert ("BACKEND_API_KEY is short" in caplog.text) is short


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, ""),
        ({"allowed_hosts": ("localhost", "127.0.0.1", "app.localhost")}, ""),
        ({"allowed_hosts": ("localhost", "llm.example")}, "serve llm.example"),
        ({"allowed_hosts": ("192.168.1.5",)}, "serve 192.168.1.5"),
        ({"host": "0.0.0.0"}, "listen on 0.0.0.0"),
        ({"host": "0.0.0.0", "allowed_hosts": ("llm.example",), "api_key": "x" * 20}, ""),
    ],
)
def test_server_that_others_reach_needs_a_key(settings: dict[str, Any], refused: str) -> None:
    config = Config(**settings)

    if refused:
        with pytest.raises(ConfigError, match=f"Refusing to {refused}"):
            config.check_exposure()
    else:
        config.check_exposure()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (51_000_000_000, 1600)),
        ({"BACKEND_MAX_UPLOAD": "5000", "BACKEND_THREADS": "10"}, (1_000_005_000, 1010)),
        (
            {"BACKEND_MAX_UPLOAD": "5000", "BACKEND_MAX_BODIES": "6000", "BACKEND_CONNECTIONS": "50"},
            (6000, 50),
        ),
    ],
)
def test_limits_of_the_server_follow_from_each_other(
    environ: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    config = Config.from_env()

    assert (config.max_bodies, config.connections) == expected


def test_limit_of_all_bodies_is_not_below_that_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKEND_MAX_BODIES", "1000")

    with pytest.raises(ConfigError, match="BACKEND_MAX_BODIES"):
        Config.from_env()

"""Settings of the process, from the environment and from the ``.env`` file in the working directory.

The settings that a user can change while the program runs are in :mod:`app.services.settings`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from dotenv import dotenv_values
from environs import Env, EnvValidationError
from marshmallow import validate

from app.addresses import is_loopback as is_loopback

ROOT = Path(__file__).resolve().parent.parent
_IN_CHECKOUT = (ROOT / "providers.json").exists()
_DATA_DIR = ROOT / "instance" if _IN_CHECKOUT else Path.home() / ".ollama-backend"
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # the ends of the names of variables that hold one


class ConfigError(Exception):
    """The environment holds invalid settings; ``str()`` names each of them."""


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for an upstream, in seconds."""

    connect: float = 3
    first_byte: float = 300
    idle: float = 120
    list: float = 10
    pull: float = 3600


@dataclass(frozen=True)
class Config:
    """The validated settings; `docs/configuration.md` describes each variable.

    :param environ: the environment itself, for the API keys of providers
    """

    host: str = "127.0.0.1"
    port: int = 8002
    data_dir: Path = _DATA_DIR
    providers_file: Path = ROOT / "providers.json"
    api_key: str = field(default="", repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_registries: tuple[str, ...] = ("registry.ollama.ai", "hf.co", "huggingface.co")
    enable: tuple[str, ...] = ()
    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)
    max_pulls: int = 2
    max_upload: int = 50_000_000_000
    threads: int = 600
    log_level: str = "INFO"
    timeouts: Timeouts = field(default_factory=Timeouts)
    environ: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    env_file: Path | None = None  # the .env file, if it holds a key or a password

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @classmethod
    def from_env(cls) -> Config:
        """Read and validate the environment.

        :raises ConfigError: when settings are invalid; it names all of them
        """
        env = Env(eager=False)  # collects the faults until seal(), so that the user sees all of them at once
        env_file = Path.cwd() / ".env"
        try:
            env.read_env(env_file, recurse=False)
            from_file = dotenv_values(env_file)
        except (OSError, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise ConfigError(f"{env_file} cannot be read: {reason}.") from exc
        values = _read(env, {**from_file, **os.environ})
        try:
            env.seal()
        except EnvValidationError as exc:
            messages = cast("dict[str, list[str]]", exc.error_messages)
            faults = [f"{name}: {' '.join(found)}" for name, found in sorted(messages.items())]
            raise ConfigError("These settings cannot be used:\n  " + "\n  ".join(faults)) from exc
        return replace(values, env_file=env_file if _has_secrets(from_file) else None)


def _has_secrets(values: Mapping[str, str | None]) -> bool:
    """Tell whether one of *values* is a key, or a URL with a password."""
    return any(
        value and (name.upper().endswith(_SECRETS) or re.search(r"://[^/@]*:[^/@]+@", value))
        for name, value in values.items()
    )


def _read(env: Env, environ: Mapping[str, str | None]) -> Config:
    default = Config()
    with env.prefixed("BACKEND_"):
        seconds = validate.Range(min=0, min_inclusive=False, max=86400)
        timeouts = Timeouts(
            **{
                name: env.float(f"{name.upper()}_TIMEOUT", value, validate=seconds)
                for name, value in vars(Timeouts()).items()
            }
        )
        return Config(
            host=env.str("HOST", default.host),
            port=env.int("PORT", default.port, validate=validate.Range(0, 65535)),
            data_dir=env.path("DATA_DIR", default.data_dir),
            providers_file=env.path("PROVIDERS_FILE", _shipped_providers()),
            api_key=env.str("API_KEY", ""),
            allowed_hosts=_names(env.list("ALLOWED_HOSTS", [])),
            allowed_origins=_names(env.list("ALLOWED_ORIGINS", [])),
            allowed_registries=_names(env.list("ALLOWED_REGISTRIES", list(default.allowed_registries))),
            enable=_names(env.list("ENABLE", [])),
            database_url=env.str("DATABASE_URL", ""),
            redis_url=env.str("REDIS_URL", ""),
            max_pulls=env.int("MAX_PULLS", default.max_pulls, validate=validate.Range(1, 16)),
            max_upload=env.int("MAX_UPLOAD", default.max_upload, validate=validate.Range(min=1)),
            threads=env.int("THREADS", default.threads, validate=validate.Range(1, 4096)),
            log_level=env.str(
                "LOG_LEVEL",
                default.log_level,
                validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"]),
            ),
            timeouts=timeouts,
            environ=environ,
        )


def _names(texts: list[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())


def _shipped_providers() -> Path:
    """Return `providers.json`: beside `app/` in a checkout, under the prefix when installed."""
    installed = Path(sys.prefix) / "share" / "ollama-backend" / "providers.json"
    return ROOT / "providers.json" if _IN_CHECKOUT else installed

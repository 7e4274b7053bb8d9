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

from click import ClickException
from dotenv import dotenv_values
from environs import Env, EnvValidationError
from marshmallow import ValidationError, validate

from app.addresses import is_loopback as is_loopback

ROOT = Path(__file__).resolve().parent.parent
_IN_CHECKOUT = (ROOT / "providers.json").exists()
MAX_ANSWER = 100_000_000
"""The default of :attr:`Config.max_answer`: a stream of 250,000 tokens, at 400 bytes for each."""
_DATA_DIR = ROOT / "instance" if _IN_CHECKOUT else Path.home() / ".ollama-backend"
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # the ends of the names of variables that hold one

_SHORTEST_KEY = 20  # characters; of random letters and digits, these are more than 100 bits
_SECONDS = validate.Range(min=0, min_inclusive=False, max=86400)
_FOR_OTHER_BODIES = 1_000_000_000  # bytes, beside the largest upload
_IDLE = 1000  # connections that clients keep open between requests, beside one for each thread


class StartFailed(ClickException):
    """The program cannot start; ``str()`` says why. A command prints it, and exits with 1."""


class ConfigError(StartFailed):
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
    max_bodies: int = 51_000_000_000
    max_answer: int = MAX_ANSWER
    workers: int = 1
    threads: int = 600
    connections: int = 1600
    head_timeout: float = 15
    client_timeout: float = 120
    log_level: str = "INFO"
    timeouts: Timeouts = field(default_factory=Timeouts)
    environ: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    env_file: Path | None = None  # the .env file, if it holds a key or a password

    @property
    def has_short_key(self) -> bool:
        """Whether the key can be guessed by trying."""
        return 0 < len(self.api_key) < _SHORTEST_KEY

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def check_exposure(self) -> None:
        """Check that nobody on another machine can use this server without a key.

        :raises ConfigError: when the address, or the names by which clients call this server, need a key
        """
        if self.api_key:
            return
        what = "" if self.is_loopback else f"listen on {self.host}"
        if names := [host for host in self.allowed_hosts if not is_loopback(host)]:
            what = what or f"serve {names[0]} (BACKEND_ALLOWED_HOSTS)"
        if what:
            raise ConfigError(
                f"Refusing to {what} without a key: anyone who reaches this machine could use its models.\n"
                "Set BACKEND_API_KEY to a long random text, or serve 127.0.0.1 and localhost only."
            )

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
        max_upload = env.int("MAX_UPLOAD", default.max_upload, validate=validate.Range(min=1))
        threads = env.int("THREADS", default.threads, validate=validate.Range(1, 4096))
        return Config(
            host=env.str("HOST", default.host),
            port=env.int("PORT", default.port, validate=validate.Range(0, 65535)),
            data_dir=env.path("DATA_DIR", default.data_dir),
            providers_file=env.path("PROVIDERS_FILE", _shipped_providers()),
            api_key=env.str("API_KEY", "", validate=_check_key),
            allowed_hosts=_names(env.list("ALLOWED_HOSTS", [])),
            allowed_origins=_names(env.list("ALLOWED_ORIGINS", [])),
            allowed_registries=_names(env.list("ALLOWED_REGISTRIES", list(default.allowed_registries))),
            enable=_names(env.list("ENABLE", [])),
            database_url=env.str("DATABASE_URL", ""),
            redis_url=env.str("REDIS_URL", ""),
            max_pulls=env.int("MAX_PULLS", default.max_pulls, validate=validate.Range(1, 16)),
            max_upload=max_upload,
            max_bodies=env.int(
                "MAX_BODIES", max_upload + _FOR_OTHER_BODIES, validate=validate.Range(min=max_upload)
            ),
            max_answer=env.int("MAX_ANSWER", default.max_answer, validate=validate.Range(min=1)),
            workers=env.int("WORKERS", default.workers, validate=validate.Range(1, 64)),
            threads=threads,
            connections=env.int("CONNECTIONS", threads + _IDLE, validate=validate.Range(16, 65536)),
            head_timeout=env.float("HEAD_TIMEOUT", default.head_timeout, validate=_SECONDS),
            client_timeout=env.float("CLIENT_TIMEOUT", default.client_timeout, validate=_SECONDS),
            log_level=env.str(
                "LOG_LEVEL",
                default.log_level,
                validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"]),
            ),
            timeouts=_timeouts(env),
            environ=environ,
        )


def _check_key(key: str) -> None:
    """Refuse a key that no client can send: a header holds visible ASCII only."""
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise ValidationError(
            "A key consists of ASCII letters, digits and punctuation, without blanks; "
            "no client could send this one."
        )


def _timeouts(env: Env) -> Timeouts:
    return Timeouts(
        **{
            name: env.float(f"{name.upper()}_TIMEOUT", value, validate=_SECONDS)
            for name, value in vars(Timeouts()).items()
        }
    )


def _names(texts: list[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())


def _shipped_providers() -> Path:
    """Return `providers.json`: beside `app/` in a checkout, under the prefix when installed."""
    installed = Path(sys.prefix) / "share" / "ollama-backend" / "providers.json"
    return ROOT / "providers.json" if _IN_CHECKOUT else installed

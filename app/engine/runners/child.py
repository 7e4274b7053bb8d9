"""The engine's side of a runner: start the child process, check that it runs, stop it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from app.engine.gojson import Object

_ROOT = Path(__file__).resolve().parents[3]
_STOP_SECONDS = 3.0
_EXIT_SECONDS = 0.5
# How often an OpenMP thread polls before it sleeps. With the default, two runners on the same cores take CPU
# time from each other (measured: 2 to 15 tokens/s each instead of 45). One runner alone is as fast with 500.
_SPINS = "500"


class LoadError(RuntimeError):
    """The model cannot be loaded; the text is a message for the client."""


class Runner:
    """A running child process with one loaded model."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, api_key: str) -> None:
        parts = urlsplit(address)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 0
        self.api_key = api_key
        self._process = process

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def wait_for_exit(self) -> None:
        """Wait up to half a second for the child's end after its connection broke; `alive` is then right."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)

    def stop(self) -> None:
        """Stop the child: close its stdin, and kill it if it does not end within three seconds."""
        _close(self._process)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start(order: Object) -> Runner:
    """Start a runner and wait until its model is loaded.

    :param order: as :meth:`~app.engine.runners.launch.Launch.order` returns it
    :raises LoadError: when the model cannot be loaded
    """
    api_key = secrets.token_hex(16)
    process = subprocess.Popen(
        [sys.executable, "-m", "app.engine.runners.runner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,  # Ctrl-C in the terminal reaches the engine only
    )
    answer = _ask(process, order | {"api_key": api_key})
    if "address" not in answer:
        _close(process)
        process.kill()
        process.wait()
        raise LoadError(str(answer.get("error", _unexplained(process.returncode))))
    return Runner(process, answer["address"], api_key)


def _ask(process: subprocess.Popen[bytes], order: Object) -> Object:
    """Send the *order* and read the child's answer, one line; empty when the child died."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or b"{}")
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # the child died before it read all of stdin
                pipe.close()


def _unexplained(code: int | None) -> str:
    return f"llama runner process has terminated: exit status {code}"


def _environment() -> dict[str, str]:
    """Return the child's environment, in which ``app`` can be imported from any working directory."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment.setdefault("GOMP_SPINCOUNT", _SPINS)
    return environment

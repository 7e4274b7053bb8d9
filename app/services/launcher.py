"""Finding an Ollama server for the run, or starting one."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from app.errors import ServiceError, UpstreamUnavailable
from app.services.ollama import OllamaService
from app.settings import is_loopback

log = logging.getLogger(__name__)

_START_LIMIT = 30.0
_POLL = 0.05
_CRASH_LOOP = 10.0


class Launcher:
    """The Ollama server of a run: one that answers already, or one that this program starts and stops.

    :param ollama: the service for the configured server
    :param url: its native base
    :param log_file: where a started server writes
    """

    def __init__(self, ollama: OllamaService, url: str, log_file: Path) -> None:
        self._ollama = ollama
        self._url = url
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._what = ""

    def start(self, mode: str) -> None:
        """Start a server when *mode* wants one: ``auto`` (if none answers), ``embedded`` or ``external``."""
        if mode == "external" or self._answers():
            return
        address = urlsplit(self._url)
        if not is_loopback(address.hostname or ""):
            return  # another machine's server cannot be started from here
        host, port = address.hostname or "127.0.0.1", address.port or 80
        program = shutil.which("ollama") if mode == "auto" else None
        if program:
            self._what, command = "`ollama serve`", [program, "serve"]
        else:
            self._what = "the embedded engine"
            command = [sys.executable, "-m", "app.engine", "--host", host, "--port", str(port)]
            command.append("--exit-with-parent")
        self._process = self._spawn(command, {"OLLAMA_HOST": f"{host}:{port}"})
        threading.Thread(
            target=self._supervise, args=(command,), name="ollama supervisor", daemon=True
        ).start()

    def describe(self) -> str:
        """Wait until the server answers, and say in a line what was found or started."""
        deadline = time.monotonic() + _START_LIMIT
        while self._process and self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return f"No Ollama was running: started {self._what} at {self._url}."
            time.sleep(_POLL)
        try:
            return f"Found Ollama {self._ollama.version()} at {self._url}."
        except UpstreamUnavailable:
            if self._what:
                return f"Could not start {self._what} at {self._url}: see {self._log_file}"
            return f"No Ollama answers at {self._url}: start it with `ollama serve` when you need it."
        except ServiceError as exc:
            return f"Something that is not a healthy Ollama answers at {self._url}: {exc.message}"

    def stop(self) -> None:
        """Stop what was started."""
        self._stopping.set()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _answers(self) -> bool:
        try:
            self._ollama.version()
        except UpstreamUnavailable:
            return False
        except ServiceError:
            return True  # something else has the port; nothing can be started there
        return True

    def _spawn(self, command: list[str], extra: dict[str, str]) -> subprocess.Popen[bytes]:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        output: IO[bytes] = self._log_file.open("ab")
        with output:
            return subprocess.Popen(  # noqa: S603  # the command is made here
                command,
                stdin=subprocess.PIPE,  # its end tells the engine that this program is gone
                stdout=output,
                stderr=output,
                env={**os.environ, **extra},
                start_new_session=True,  # Ctrl-C is for this program, which then stops the server
            )

    def _supervise(self, command: list[str]) -> None:
        """Start the server again when it dies, unless it dies at once."""
        while self._process:
            began = time.monotonic()
            self._process.wait()
            if self._stopping.is_set() or time.monotonic() - began < _CRASH_LOOP:
                return
            log.error("%s ended; starting it again. Its log: %s", self._what, self._log_file)
            self._process = self._spawn(command, {})

"""Find the Ollama server for this run of the program, or start one and supervise it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from app.config import Timeouts, is_loopback
from app.errors import ServerStopping, ServiceError, UpstreamUnavailable
from app.services.ollama.service import OllamaService
from app.services.providers import Provider
from app.storage.folder import make_private
from app.upstream.readiness import START_LIMIT, Readiness
from app.upstream.session import UpstreamSession

log = logging.getLogger(__name__)

_TIMEOUTS = Timeouts(connect=1, list=2)  # only for the version, which a server answers at once
_STOP_LIMIT = 2.5  # seconds
_POLL = 0.05


class Launcher:
    """Finds a running Ollama server, or starts one and stops it at the end.

    :param session: the connections; the caller closes it
    :param provider: its ``base_url`` is the server's address
    :param log_file: receives the output of the server that is started
    :param mode: ``auto`` starts Ollama if it is installed, else the embedded engine; ``embedded`` starts the
        engine; ``external`` starts nothing
    :param readiness: lets requests to the address wait, from now on and while a server is being started
    """

    def __init__(
        self, session: UpstreamSession, provider: Provider, log_file: Path, mode: str, readiness: Readiness
    ) -> None:
        self._ollama = OllamaService(session, provider, _TIMEOUTS)
        self._url = provider.native_url
        self._log_file = log_file
        self._mode = mode
        self._readiness = readiness
        address = urlsplit(self._url)
        self._host, self._port = address.hostname or "", address.port or 80
        if mode != "external" and is_loopback(self._host):
            readiness.starting(self._url)
        self._what = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._stopping = False

    def start(self) -> None:
        """Start a server in the background, if none answers at the address and the mode says so."""
        if not self._readiness.supervises(self._url):
            return
        if self._answers():
            self._readiness.given_up()
            return
        host, port = self._host, self._port
        program = shutil.which("ollama") if self._mode == "auto" else None
        if program:
            self._what, command = "`ollama serve`", [program, "serve"]
        else:
            self._what = "the embedded engine"
            command = [sys.executable, "-m", "app.engine", "--exit-with-parent"]
            command += ["--host", host, "--port", str(port)]
        environment = {**os.environ, "OLLAMA_HOST": f"{host}:{port}"}
        threading.Thread(
            target=self._supervise, args=(command, environment), name="ollama supervisor", daemon=True
        ).start()

    def describe(self) -> str:
        """Wait until the server answers; return a line that says what was found or started."""
        self._readiness.is_ready.wait(START_LIMIT)
        try:
            version = self._ollama.version()
        except UpstreamUnavailable:
            if self._what:
                return f"Could not start {self._what} at {self._url}: see {self._log_file}"
            return f"No Ollama answers at {self._url}: start it with `ollama serve` when you need it."
        except ServerStopping as exc:
            return exc.message
        except ServiceError as exc:
            return f"Something that is not a healthy Ollama answers at {self._url}: {exc.message}"
        if self._what:
            return f"No Ollama was running: started {self._what} at {self._url}."
        return f"Found Ollama {version} at {self._url}."

    def stop(self) -> None:
        """Stop the server that :meth:`start` started; leave any other server running."""
        with self._starting:
            self._stopping = True
            process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            log.warning("%s does not stop; it is killed", self._what)
            process.kill()
            process.wait()

    def _supervise(self, command: list[str], environment: dict[str, str]) -> None:
        """Start the server, and start it again each time it dies.

        A server that dies before its first answer is not started again: it would die for ever.
        """
        try:
            while process := self._spawn(command, environment):
                while not self._answers():
                    if process.poll() is not None:
                        return
                    time.sleep(_POLL)
                self._readiness.started()
                process.wait()
                self._readiness.starting(self._url)
                if not self._stopping:
                    log.error("%s died; starting it again. Its log: %s", self._what, self._log_file)
        finally:
            self._readiness.given_up()

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
        """Start *command*; return None when this program is stopping."""
        with self._starting:
            if self._stopping:
                return None
            make_private(self._log_file)
            with self._log_file.open("ab") as output:
                self._process = subprocess.Popen(  # the command is made here  # noqa: S603
                    command,
                    stdin=subprocess.PIPE,  # the end of this pipe tells the engine that this program is gone
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,  # Ctrl-C reaches this program alone, which stops the server
                )
            return self._process

    def _answers(self) -> bool:
        try:
            self._ollama.version()
        except UpstreamUnavailable:
            return False
        except ServiceError:
            return True  # something has the port, so no server could be started there
        return True

"""A server to measure: how it is started and stopped, its requests, its memory and CPU time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.load import post

ROOT = Path(__file__).resolve().parent.parent

_START_LIMIT = 120.0  # seconds
_POLL = 0.005
_REST = 0.05  # CPU seconds per second that a resting server may use


@dataclass
class Target:
    """A server to measure.

    :param kind: the word that chooses it on the command line
    :param command: the command that starts it
    :param health: a path that it answers with 200 when it is ready
    :param chat: the path of a chat: this backend's ``/api/chat``, or OpenAI's API
    :param checkout: the folder that it runs in
    :param before: the name of the checkout, unless it is this one
    """

    kind: str
    name: str
    command: list[str]
    port: int
    folder: Path
    health: str = "/v1/models"
    chat: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    version: str = ""
    checkout: Path = ROOT
    before: str = ""
    process: subprocess.Popen[bytes] | None = None
    most_memory: float | None = None

    def ask(self, model: str, stream: bool) -> bytes:
        """Return the request for a chat."""
        message = "Why is the sky blue?"
        if self.chat == "/api/chat":
            body = {"message": message, "provider": "ollama", "model": model, "stream": stream}
            return post(self.chat, body, self.headers)
        messages = [{"role": "user", "content": message}]
        return post(self.chat, {"model": model, "messages": messages, "stream": stream}, self.headers)

    def start(self) -> float:
        """Start it, and return the seconds until it answered its first request."""
        started = time.perf_counter()
        log_file = self.folder / f"{self.port}.log"
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(  # the command is made here  # noqa: S603
                self.command, cwd=self.checkout, env={**os.environ, **self.env}, stdout=log, stderr=log
            )
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() - started > _START_LIMIT:
                told = log_file.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{self.name} does not start:\n{told}")
            time.sleep(_POLL)
        return time.perf_counter() - started

    def settle(self) -> None:
        """Wait until it uses no CPU time: what it loads after its first answer counts as its memory."""
        before = None
        while (now := self.cpu()) is not None and (before is None or now - before > _REST):
            before = now
            time.sleep(1)

    def stop(self) -> None:
        """Stop the server; do nothing when it does not run."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self) -> float | None:
        """Return the resident megabytes of all its processes; None without /proc."""
        pages = [int(statm.split()[1]) for pid in self._pids() if (statm := _proc(pid, "statm"))]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else None

    def note_memory(self) -> None:
        """Keep the memory as `most_memory` if it is more than before."""
        memory = self.memory()
        if memory is not None:
            self.most_memory = max(memory, self.most_memory or 0)

    def cpu(self) -> float | None:
        """Return the CPU seconds that all its processes used; None without /proc."""
        stats = [_proc(pid, "stat").rpartition(")")[2].split() for pid in self._pids()]
        found = [stat for stat in stats if stat]  # a process may end meanwhile
        return sum(int(f[11]) + int(f[12]) for f in found) / os.sysconf("SC_CLK_TCK") if found else None

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False

    def _pids(self) -> list[int]:
        if self.process is None or not Path("/proc/self/statm").exists():
            return []
        found = [self.process.pid]
        for pid in found:  # the list grows during the loop
            found += map(int, _proc(pid, f"task/{pid}/children").split())
        return found


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _proc(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text()
    return ""

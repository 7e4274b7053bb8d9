"""The engine as a real process, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0


class EngineProcess:
    """An engine on a free port: ``with EngineProcess(models_dir) as engine``."""

    def __init__(
        self,
        models_dir: Path,
        port: int = 0,
        *,
        arguments: Sequence[str] = (),
        env: dict[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        self.models_dir = models_dir
        self.url = ""
        self.log_path = models_dir.parent / f"{models_dir.name}.log"
        self._command = [
            sys.executable, "-m", "app.engine", "--port", str(port), "--models", str(models_dir),
            "--exit-with-parent", *arguments,
        ]  # fmt: skip
        if files is not None:  # the most open files of the process
            self._command = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *self._command]
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineProcess:
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.PIPE,  # stays open: the engine ends when it is closed
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("Listening on "), self.log
        self.url = line.split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(15)
        finally:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """The log of the engine and its runners so far."""
        return self.log_path.read_text("utf-8", "replace")

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, **{"timeout": 60, **options})

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> requests.Response:
        return self.request("POST", path, json=body, **options)

    def runner_pids(self) -> list[int]:
        """Return the process ids of the runners; on Linux only."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:  # the process has ended meanwhile
                continue
            if int(parent) == self.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def kill_runners(self) -> None:
        for pid in self.runner_pids():
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until *condition* is true; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)

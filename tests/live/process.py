"""The backend as a real process, for tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.postgres import database_url

ROOT = Path(__file__).resolve().parents[2]


class BackendProcess:
    """`backend_server.py` on a free port: ``with BackendProcess(data_dir, ollama_url) as backend``."""

    def __init__(self, data_dir: Path, ollama_url: str, flags: tuple[str, ...] = (), **env: str) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        provider = {"ollama": {"base_url": f"{ollama_url}/v1"}}
        (data_dir / "providers.json").write_text(json.dumps(provider))
        self.data_dir = data_dir
        self.log_path = data_dir / "backend.log"
        self.greeting = ""
        self.url = ""
        self._command = [sys.executable, "backend_server.py", "--port", "0", *flags]
        kept = {"BACKEND_DATA_DIR": str(data_dir), "BACKEND_DATABASE_URL": database_url(data_dir)}
        self._env = {**os.environ, **kept, **env}
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> BackendProcess:
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.greeting = "".join(lines)
        found = re.search(r"http://127\.0\.0\.1:\d+", lines[2])
        assert found, self.greeting + self.log
        self.url = found[0]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, **{"timeout": 60, **options})

    def post(self, path: str, body: object, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, **{"timeout": 60, **options})


def stream_events(response: requests.Response) -> Any:
    """Yield the events of a streamed chat."""
    name = ""
    for line in response.iter_lines():
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


class GunicornProcess(BackendProcess):
    """The backend under gunicorn, with two processes; has the methods of :class:`BackendProcess`."""

    def __init__(self, data_dir: Path, ollama_url: str, flags: tuple[str, ...] = (), **env: str) -> None:
        super().__init__(data_dir, ollama_url, **env)
        self.url = f"http://127.0.0.1:{free_port()}"
        workers = ["-k", "gthread", "-w", "2", "--threads", "16", *flags]
        address = self.url.removeprefix("http://")
        self._command = [sys.executable, "-m", "gunicorn", *workers, "-b", address, "app.wsgi:app"]

    def __enter__(self) -> GunicornProcess:
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            wait_until(self._is_up, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_up(self) -> bool:
        try:
            return self.get("/api/health", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

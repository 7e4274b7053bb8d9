"""A real Redis for tests, on a port of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from tests.engine.process import wait_until
from tests.free_port import free_port

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="Redis is not installed")


class RedisServer:
    """`redis-server`, which can be stopped and started again: ``with RedisServer(folder) as server``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}"
        self.client = redis.Redis.from_url(self.url)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()

    def start(self) -> None:
        flags = ["--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self._port), *flags], stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, 20)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

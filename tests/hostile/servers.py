"""PostgreSQL and Redis of a run's own, which can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.free_port import free_port
from tests.hostile.processes import Process, program, wait_until
from tests.hostile.result import Skipped


class Postgres(Process):
    """The installed PostgreSQL with a database `backend`."""

    def __init__(self, folder: Path) -> None:
        if not program("initdb"):
            raise Skipped("PostgreSQL is not installed")
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        folder.mkdir()
        self._user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(folder, self._user)
            for parent in folder.parents[:2]:
                parent.chmod(0o755)
        data = folder / "data"
        subprocess.run(
            [program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N"],
            check=True, cwd=folder, stdout=subprocess.DEVNULL, user=self._user,
        )  # fmt: skip
        settings = ["listen_addresses=127.0.0.1", "max_connections=200"]
        options = [part for setting in settings for part in ("-c", setting)]
        super().__init__(
            [program("postgres"), "-D", str(data), "-p", str(self.port), "-k", str(folder), *options],
            folder.parent / "postgres.log", user=self._user, cwd=folder,
        )  # fmt: skip

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def start(self) -> None:
        super().start()
        import psycopg

        def answers() -> bool:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.Error:
                return False
            return True

        assert wait_until(answers, 30, 0.1), self.log


class Redis(Process):
    """The installed Redis, which keeps each change at once."""

    def __init__(self, folder: Path) -> None:
        if not program("redis-server"):
            raise Skipped("Redis is not installed")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        folder.mkdir()
        options = [
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]
        super().__init__(
            [program("redis-server"), "--port", str(self.port), *options], folder.parent / "redis.log"
        )

    def __enter__(self) -> Redis:
        self.start()
        return self

    def start(self) -> None:
        super().start()
        import redis

        def answers() -> bool:
            try:
                with redis.Redis(port=self.port) as client:
                    return bool(client.ping())
            except redis.RedisError:
                return False

        assert wait_until(answers, 15, 0.05), self.log

"""The backend as a real process that can be killed, and what it uses of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.free_port import free_port

ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.02) -> bool:
    """Poll until *condition* is true; return whether it was within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Process:
    """A program that is surely dead at the end of its ``with`` block."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None, **more: Any) -> None:
        self.command, self.log_path = command, log
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._more = more
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self._more.get("cwd", ROOT),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._more.get("user"),
            )

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    @property
    def traceback(self) -> str:
        """The end of the first traceback in the log; empty if there is none."""
        found = re.search(r"Traceback \(most recent.*?\n(?=\S[^\n]*\n)(\S[^\n]*)", self.log, re.DOTALL)
        return found[0][-400:] if found else ""

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with all its descendants, so that none can clean up or go on."""
        if self.process is None:
            return
        found = [self.pid, *descendants(self.pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = 10) -> int | None:
        """Send SIGTERM; return the exit code, or None if it did not end within *seconds* and was killed."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()


class Backend(Process):
    """`backend_server.py` or gunicorn with a data folder of its own, on a port that stays the same."""

    def __init__(
        self,
        data: Path,
        *flags: str,
        gunicorn: int = 0,
        providers: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        prefix: tuple[str, ...] = (),
        **env: str,
    ) -> None:
        """:param gunicorn: the number of worker processes of gunicorn; 0 for `backend_server.py`"""
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = env.get("BACKEND_API_KEY", "")
        data.mkdir(parents=True, exist_ok=True)
        for name, content in (("providers.json", providers), ("settings.json", settings)):
            if content:
                (data / name).write_text(json.dumps(content))
        if gunicorn:
            program = [
                str(Path(sys.executable).parent / "gunicorn"), "-k", "gthread", "-w", str(gunicorn),
                "--threads", "100", "--forwarder-headers=", "-b", f"127.0.0.1:{self.port}", "app.wsgi:app",
            ]  # fmt: skip
        else:
            program = [sys.executable, "backend_server.py", "--port", str(self.port), *flags]
        log = Path(tempfile.mkdtemp()) / "log"
        super().__init__(
            [*prefix, *program], log, {"BACKEND_DATA_DIR": str(data), "BACKEND_DATABASE_URL": "", **env}
        )

    def __enter__(self) -> Backend:
        self.start()
        assert self.wait_for_health(), f"the backend did not start: {self.log[-2000:]}"
        return self

    def wait_for_health(self, seconds: float = 40) -> bool:
        """Wait until it answers; return False if it does not, or ends."""
        wait_until(lambda: not self.running or self.is_healthy(), seconds, 0.05)
        return self.running and self.is_healthy()

    def is_healthy(self, seconds: float = 5) -> bool:
        """Tell whether the health is answered in time."""
        try:
            return self.call("GET", "/api/health", timeout=seconds).status_code == 200
        except requests.RequestException:
            return False

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request with the key, without proxies."""
        headers = {
            **({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            **options.pop("headers", {}),
        }
        if body is not None:
            options["json"] = body
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, headers=headers, **{"timeout": 60, **options})

    def get(self, path: str, **options: Any) -> Any:
        """Return the JSON of a path."""
        return self.call("GET", path, **options).json()

    def restart(self) -> bool:
        """Kill it and start it again; return whether it answers."""
        self.kill()
        self.start()
        return self.wait_for_health()

    def usage(self) -> dict[str, int]:
        """Return the memory in MB, the threads and the open files of its processes."""
        return usage([self.pid, *descendants(self.pid)])


def descendants(pid: int) -> list[int]:
    """Return the processes that *pid* started, and those that they started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        left = [child for parent in left for child in children.get(parent, [])]
        found += left
    return found


def usage(pids: list[int]) -> dict[str, int]:
    """Return the memory in MB, the threads and the open files of *pids*."""
    total = {"MB": 0, "threads": 0, "files": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            values = dict(line.split(":", 1) for line in status.splitlines())
            total["MB"] += int(values.get("VmRSS", "0 kB").split()[0]) // 1024
            total["threads"] += int(values["Threads"])
            total["files"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return total


def spooled(pid: int) -> int:
    """Return the bytes that *pid* has in deleted or temporary files."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(link.readlink())
            if "deleted" in target or "/tmp" in target:
                total += link.stat().st_size
    return total


@contextlib.contextmanager
def faketime(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """Yield the environment of a process whose clock a function moves, such as ``+1d``."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    assert library is not None
    stamp = folder / "time"

    def move(offset: str) -> None:
        new = folder / "time.new"
        new.write_text(f"{offset}\n")
        new.replace(stamp)

    move("+0")
    yield (
        {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(stamp),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
        move,
    )


def program(name: str) -> str:
    """Return the path of an installed program; empty if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name) or ""

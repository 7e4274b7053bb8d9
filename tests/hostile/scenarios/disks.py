"""A full disk, a disk that may not be written to: typed errors, then everything goes on, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.hostile.client import ask
from tests.hostile.processes import Backend, wait_until
from tests.hostile.result import Skipped
from tests.hostile.run import Run

_TYPED = {"storage_failed", "disk_full"}


def run(run: Run) -> None:
    if sys.platform != "linux" or os.getuid() != 0:
        raise Skipped("only root can make a small disk")
    for name, close in (("full", _full), ("read-only", _read_only)):
        for how in ("", "gunicorn"):
            if how and run.quick:
                continue
            _attack(run, f"{name}{' under gunicorn' if how else ''}", close, 2 if how else 0)
    _start_on_a_read_only_disk(run)


def _attack(run: Run, name: str, close: object, gunicorn: int) -> None:
    assert callable(close)
    provider = run.provider()
    provider.delay = 0.03
    disk = run.enter(_disk(run.folder / name.replace(" ", "-")))
    backend = run.backend(provider, data=disk / "data", gunicorn=gunicorn)
    before = _change(backend, "before")
    run.result.check(set(before.values()) == {""}, f"{name}: before: {before}")
    id = ask(backend, "/api/conversations", {"title": "Kept"}).body["id"]
    ask(backend, "/api/chat", {"message": "kept", "conversation_id": id})
    pull = ask(backend, "/api/providers/ollama/pull", {"model": "running", "background": True}).body["id"]
    with close(disk):
        for _ in range(run.pick(3, 10)):
            for what, error in _change(backend, "meanwhile").items():
                run.result.check(error in {"", *_TYPED}, f"{name}: {what}: {error}")
        chat = ask(backend, "/api/chat", {"message": "Hi"})
        run.result.check(chat.status == 200, f"{name}: a chat that is not stored: {chat.describe()}")
        stored = ask(backend, "/api/chat", {"message": "Hi", "conversation_id": id, "stream": True})
        run.result.check(
            stored.ended_once and stored.error_type in {"", *_TYPED}, f"{name}: {stored.describe()}"
        )
        run.result.check(backend.is_healthy(), f"{name}: the health does not answer")
    _check_recovery(run, backend, name, id, pull)
    run.result.check(not backend.traceback, f"{name}: a traceback: {backend.traceback}")
    run.result.check(backend.stop() == 0, f"{name}: SIGTERM does not end it")


def _change(backend: Backend, value: str) -> dict[str, str]:
    """Change something of each kind; return the slug of each error, empty for a success."""
    exported = {"version": 1, "title": value, "messages": [{"role": "user", "content": "x" * 50_000}]}
    answers = {
        "create": ask(backend, "/api/conversations", {"title": value}),
        "import": ask(backend, "/api/conversations/import", exported),
        "settings": ask(backend, "/api/settings", {"system_prompt": value + "x" * 5000}, method="PUT"),
        "provider": ask(backend, "/api/providers/groq", {"model": value}, method="PATCH"),
        "pull": ask(backend, "/api/providers/ollama/pull", {"model": f"new-{value}", "background": True}),
        "list": ask(backend, "/api/conversations", method="GET"),
        "usage": ask(backend, "/api/usage", method="GET"),
        "pulls": ask(backend, "/api/providers/ollama/pulls", method="GET"),
    }
    return {
        name: "" if 200 <= answer.status < 300 else answer.error_type or answer.describe()
        for name, answer in answers.items()
    }


def _check_recovery(run: Run, backend: Backend, name: str, id: str, pull: str) -> None:
    """With space again, everything works, without a restart."""
    works = wait_until(lambda: set(_change(backend, "after").values()) == {""}, 20, 0.3)
    run.result.check(works, f"{name}: afterwards: {_change(backend, 'after')}")
    path = f"/api/providers/ollama/pulls/{pull}"
    over = wait_until(lambda: backend.get(path).get("status") == "done", 30, 0.3)
    run.result.check(
        over, f"{name}: the pull is {backend.get(path).get('status')}: {backend.get(path).get('error')}"
    )
    rows = backend.get(f"/api/conversations/{id}").get("messages", [])
    run.result.check([row["content"] for row in rows[:1]] == ["kept"], f"{name}: lost what was stored before")
    later = ask(backend, "/api/providers/ollama/pull", {"model": "later"}, timeout=30)
    run.result.check(later.status == 200, f"{name}: a pull afterwards: {later.describe()}")
    freed = wait_until(
        lambda: ask(backend, "/api/chat", {"message": "Hi", "conversation_id": id}).status == 200, 45, 1
    )
    run.result.check(freed, f"{name}: the conversation is stuck")
    healthy = wait_until(lambda: backend.get("/api/health")["status"] == "ok", 20, 0.3)
    run.result.check(healthy, f"{name}: the health is {backend.get('/api/health')}")


def _start_on_a_read_only_disk(run: Run) -> None:
    """The start fails in a sentence, and succeeds when the disk is writable again."""
    disk = run.enter(_disk(run.folder / "start"))
    backend = run.backend(run.provider(), start=False, data=disk / "data")
    with _read_only(disk):
        backend.start()
        wait_until(lambda: not backend.running or backend.is_healthy(), 30)
        told = backend.running or ("Error: " in backend.log and "Traceback" not in backend.log)
        run.result.check(told, f"a start on a read-only disk: {backend.log[-300:]}")
        backend.kill()
    run.result.check(backend.restart(), f"a start afterwards: {backend.log[-300:]}")


@contextmanager
def _disk(path: Path) -> Iterator[Path]:
    """Mount a disk of 12 MB."""
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], capture_output=True)
    if made.returncode:
        raise Skipped("no disk can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False)


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for size in (100_000, 4096, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    """Let no new file be opened for writing, as a disk with a fault does."""
    how = ["mount", "-o", "remount,ro", disk]
    if subprocess.run(how, capture_output=True).returncode:  # files are open for writing
        with _immutable(disk):
            yield
        return
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@contextmanager
def _immutable(disk: Path) -> Iterator[None]:
    """Mount what is on *disk* over itself, read-only."""
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", disk], check=True)

"""Files of the data folder, damaged while the backend was down: it starts, or says why not, and keeps the originals."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.hostile.client import ask
from tests.hostile.processes import Backend, wait_until
from tests.hostile.run import Run

_NEVER = ("-shm", ".lock")  # the system's own: what is in them does not count


def run(run: Run) -> None:
    provider = run.provider()
    model = run.backend(provider)
    _use(model)
    model.stop()
    files = [path for path in model.data.iterdir() if path.is_file() and not path.name.endswith(_NEVER)]
    ways = ["junk", "half", "empty", "flipped", "folder"]
    attacks = [(path.name, how) for path in sorted(files) for how in ways]
    for name, how in run.rng.sample(attacks, run.pick(4, len(attacks))):
        _damage(run, model, name, how)


def _use(backend: Backend) -> None:
    """Let the backend write each of its files."""
    backend.call("PUT", "/api/settings", {"system_prompt": "Be brief."})
    backend.call("PATCH", "/api/providers/groq", {"api_key": "sk-a-key-of-a-person"})
    id = backend.call("POST", "/api/conversations", {"title": "Sky"}).json()["id"]
    for _ in range(5):
        ask(backend, "/api/chat", {"message": "word " * 500, "conversation_id": id})
    ask(backend, "/api/providers/ollama/pull", {"model": "tiny", "background": True})
    backend.get("/api/providers/ollama/updates")
    wait_until(lambda: backend.get("/api/providers/ollama/pulls")["pulls"][0]["status"] == "done", 20)


def _damage(run: Run, model: Backend, name: str, how: str) -> None:
    data = run.folder / f"{how}-{name}"
    shutil.copytree(model.data, data)
    path = data / name
    backend = run.backend(start=False, data=data)
    raw = _spoil(run, path, how)
    backend.start()
    answers = backend.wait_for_health()
    what = f"{name}, {how}"
    log = backend.log
    if answers:
        _check_use(run, backend, what)
    else:
        wait_until(lambda: not backend.running, 5)
        sentence = "Error: " in log and name.split(".")[0] in log.replace(str(data), "")
        run.result.check(not backend.running and sentence, f"{what}: does not start, and says {log[-200:]!r}")
    run.result.check(not backend.traceback, f"{what}: a traceback: {backend.traceback}")
    kept = how in {"folder", "empty"} or any(
        found.read_bytes() == raw for found in data.rglob("*") if found.is_file()
    )
    if not name.endswith("-wal") and how != "flipped":
        run.result.check(kept, f"{what}: the damaged file is nowhere any more")
    backend.kill()
    shutil.rmtree(data, ignore_errors=True)


def _check_use(run: Run, backend: Backend, what: str) -> None:
    """A backend with a damaged file must work, or say in each answer what is wrong."""
    created = ask(backend, "/api/conversations", {"title": "New"})
    settings = ask(backend, "/api/settings", {"temperature": 0.5}, method="PUT")
    listed = ask(backend, "/api/conversations", method="GET")
    pulls = ask(backend, "/api/providers/ollama/pulls", method="GET")
    for asked, answer in (("create", created), ("settings", settings), ("list", listed), ("pulls", pulls)):
        told = answer.status < 400 or answer.error_type not in {"", "internal_error"}
        run.result.check(told and not answer.broken, f"{what}: {asked}: {answer.describe()}")


def _spoil(run: Run, path: Path, how: str) -> bytes:
    """Damage a file; return what is in it then."""
    raw = path.read_bytes() if path.is_file() else b""
    if how == "folder":
        path.unlink(missing_ok=True)
        path.mkdir(exist_ok=True)
        return b""
    middle = len(raw) // 2
    flipped = raw[:middle] + bytes(byte ^ 0xFF for byte in raw[middle : middle + 200]) + raw[middle + 200 :]
    spoiled = {"junk": run.rng.randbytes(3000), "half": raw[:middle], "empty": b"", "flipped": flipped}[how]
    path.write_bytes(spoiled)
    return spoiled

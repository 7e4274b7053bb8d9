"""The data folder of a real server: private under every umask, with each way to start it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import ROOT

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")]

WAITRESS = ("backend_server.py", "--ollama", "embedded", "--enable", "ollama", "--port")
GUNICORN = ("-m", "gunicorn", "-k", "gthread", "-w", "2", "--threads", "4", "app.wsgi:app", "-b")
FLASK = ("-m", "flask", "--app", "app", "chat")


@contextmanager
def serving(folder: Path, command: tuple[str, ...], umask: int) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    address = str(port) if command is WAITRESS else f"127.0.0.1:{port}"
    env = {**os.environ, "BACKEND_DATA_DIR": str(folder), "OLLAMA_MODELS": str(folder.parent / "models")}
    env.pop("BACKEND_DATABASE_URL", None)
    log_path = folder.parent / "log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            [sys.executable, *command, address], cwd=ROOT, env=env, umask=umask, stdout=log, stderr=log
        ) as process,
    ):
        try:
            wait_until(lambda: _is_up(url), 60)
            yield url
        finally:
            process.terminate()


def _is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/health", timeout=60).ok
    except requests.ConnectionError:
        return False


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
@pytest.mark.parametrize("command", [WAITRESS, GUNICORN], ids=["waitress", "gunicorn"])
def test_data_folder_is_private(tmp_path: Path, command: tuple[str, ...], umask: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    ollama = {"ollama": {"base_url": f"http://127.0.0.1:{free_port()}/v1"}}
    (folder / "providers.json").write_text(json.dumps(ollama))
    (folder / "settings.json").write_text("{")
    (folder / "updates.json").write_text("{}")
    (folder / ".providers.json.ab12_cd9").write_text('{"api_key": "sk-secret"}')
    expected = {"backend.db", "backend.db-wal", "backend.db-shm", "settings.json.lock"}
    expected |= {"ollama.log"} if command is WAITRESS else set()

    with serving(folder, command, umask) as url:
        wait_until(lambda: expected - {"settings.json.lock"} <= modes(folder).keys(), 60)
        assert requests.put(f"{url}/api/settings", json={"temperature": 0.5}, timeout=20).ok
        assert requests.post(f"{url}/api/conversations", json={}, timeout=20).ok
        found = modes(folder)
        blobs = tmp_path / "models" / "blobs"
        wait_until(lambda: command is GUNICORN or blobs.exists(), 60)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert set(found.values()) == {"0o600"}
    assert expected <= found.keys()
    assert any(name.startswith("settings.json.damaged-") for name in found)
    assert ".providers.json.ab12_cd9" not in found
    log = (tmp_path / "log").read_text()
    assert log.count("Other users could read the data folder") == 1
    assert "sk-secret" not in log
    if command is WAITRESS and umask == 0o022:  # Ollama uses the models folder too: it stays as it would be
        assert stat.S_IMODE(blobs.stat().st_mode) == 0o755


@pytest.mark.parametrize("command", [WAITRESS, GUNICORN, FLASK], ids=["waitress", "gunicorn", "flask"])
def test_data_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    env = {**os.environ, "BACKEND_DATA_DIR": str(tmp_path / "file" / "data")}
    port = free_port()
    address = str(port) if command is WAITRESS else f"127.0.0.1:{port}"

    done = subprocess.run(
        [sys.executable, *command, address], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )

    assert done.returncode != 0
    assert f"The data folder cannot be used: {tmp_path / 'file' / 'data'}: not a directory." in done.stderr
    assert "Traceback" not in done.stderr

"""What only a real server shows: clients that leave a silent stream, under waitress and under gunicorn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests

from tests.engine.process import wait_until
from tests.free_port import free_port
from tests.live.process import ROOT, BackendProcess, stream_events
from tests.raw_server import Connection, raw_server

pytestmark = pytest.mark.live

DELTA = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'


@contextmanager
def _waitress(data_dir: Path, upstream: str) -> Iterator[str]:
    with BackendProcess(data_dir, upstream, ("--enable", "ollama")) as backend:
        yield backend.url


@contextmanager
def _gunicorn(data_dir: Path, upstream: str) -> Iterator[str]:
    data_dir.mkdir()
    (data_dir / "providers.json").write_text(json.dumps({"ollama": {"base_url": f"{upstream}/v1"}}))
    url = f"http://127.0.0.1:{free_port()}"
    env = {**os.environ, "BACKEND_DATA_DIR": str(data_dir), "BACKEND_ENABLE": "ollama"}
    flags = ["-k", "gthread", "-w", "2", "--threads", "4", "-b", url.removeprefix("http://")]
    command = [sys.executable, "-m", "gunicorn", *flags, "app.wsgi:app"]
    with (
        (data_dir / "log").open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: _is_up(url), 60)
            yield url
        finally:
            process.terminate()


def _is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/health", timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


@pytest.mark.parametrize("serve", [_waitress, _gunicorn])
def test_client_that_leaves_a_silent_stream_frees_the_upstream(
    tmp_path: Path, serve: Callable[[Path, str], AbstractContextManager[str]]
) -> None:
    hung_up = threading.Event()

    def stall(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(DELTA)
        connection.wait_for_close()
        hung_up.set()

    with raw_server(stall) as upstream, serve(tmp_path / "data", upstream.url) as url:
        body = {"message": "Hi", "model": "x", "stream": True}
        with requests.post(f"{url}/api/chat", json=body, stream=True, timeout=30) as response:
            events = stream_events(response)
            assert [next(events)[0], next(events)[0]] == ["start", "delta"]

        assert hung_up.wait(5)

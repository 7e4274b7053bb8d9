"""A pull that is fed bytes without end stays in the hands of its user."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.engine.process import wait_until
from tests.live.process import BackendProcess
from tests.raw_server import Connection, raw_server

pytestmark = pytest.mark.live

PULL = "/api/providers/ollama/pull"
PULLS = "/api/providers/ollama/pulls"
MODEL = "127.0.0.1:1/library/a:latest"  # whose registry is not there


def _drip(connection: Connection) -> None:
    connection.send(b'{"status":"pulling a')
    silence = threading.Event()
    while not silence.wait(0.2):  # less than a tick: no read ends without a byte
        connection.send(b"a")


def _flood(connection: Connection) -> None:
    connection.send(b'{"status":"pulling a')
    while True:
        connection.send(b"a" * 100_000)


class Ollama:
    """Answers each pull with *feed*, and counts them; ``is_over`` is set when a connection was closed."""

    def __init__(self, feed: Any) -> None:
        self.feed = feed
        self.pulls = 0
        self.is_over = threading.Event()

    def __call__(self, connection: Connection) -> None:
        if connection.path != "/api/pull":
            connection.send(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"models": [], "version": "1"}'
            )
            return
        self.pulls += 1
        with contextlib.suppress(OSError):
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
            )
            self.feed(connection)
        self.is_over.set()


@pytest.mark.parametrize(("verb", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_pull_that_is_fed_a_line_without_end_is_stopped_at_once(
    tmp_path: Path, verb: str, status: str
) -> None:
    ollama = Ollama(_drip)
    with (
        raw_server(ollama) as server,
        BackendProcess(tmp_path, server.url, ("--enable", "ollama")) as backend,
    ):
        id = backend.post(PULL, {"model": MODEL, "insecure": True, "background": True}).json()["id"]
        wait_until(lambda: ollama.pulls, 30)

        assert backend.post(f"{PULLS}/{id}/{verb}", None).status_code == 200

        wait_until(lambda: backend.get(f"{PULLS}/{id}").json()["status"] == status, 30)
        assert ollama.is_over.wait(30)
        assert ollama.pulls == 1


def test_pull_that_is_fed_too_long_a_line_fails_and_is_not_tried_again(tmp_path: Path) -> None:
    ollama = Ollama(_flood)
    with (
        raw_server(ollama) as server,
        BackendProcess(tmp_path, server.url, ("--enable", "ollama")) as backend,
    ):
        failed = backend.post(PULL, {"model": MODEL, "insecure": True})

    assert failed.status_code == 500
    assert failed.json()["error_type"] == "invalid_upstream_response"
    assert failed.json()["details"] == {"max_line_bytes": 16_000_000}
    assert ollama.pulls == 1

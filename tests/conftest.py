"""Fixtures of all tests: the app, a database, and fakes of the upstreams on the wire."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses as responses_library
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from app import create_app
from app.config import Config, Timeouts
from app.format_checker import pool
from app.storage.database import Database
from tests import postgres
from tests.certificates import Tls, make_tls
from tests.postgres import database_url
from tests.wire import recording

# No test may depend on the speed of the machine: no deadline to run or to generate an example.
hypothesis_settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("suite")
pool._pool.limit = 60

# A shell lets what it starts in the background ignore Ctrl-C, and programs hand that on to those they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database without rows. To copy it takes less time than to migrate a new one for each test."""
    folder = tmp_path_factory.mktemp("tables")
    database = Database("", folder)
    database.migrate()
    database.close()
    return folder / "backend.db"


def _copy(tables: Path, folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if not postgres.WANTED:
        shutil.copy(tables, folder)  # with its mode


@pytest.fixture
def config(tmp_path: Path, tables: Path) -> Config:
    """A configuration with a data folder for one test, and short timeouts."""
    _copy(tables, tmp_path / "data")
    return Config(
        data_dir=tmp_path / "data",
        database_url=database_url(tmp_path / "data"),
        enable=("ollama",),
        timeouts=Timeouts(connect=2, first_byte=5, idle=5, list=5, pull=30),
    )


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for localhost."""
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    app = create_app(config)
    yield app
    app.extensions["services"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def database(tmp_path: Path, tables: Path) -> Iterator[Database]:
    """A database for one test, with its tables."""
    _copy(tables, tmp_path)
    database = Database(database_url(tmp_path), tmp_path)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def wire() -> Iterator[responses_library.RequestsMock]:
    """A mock that answers requests of the requests library."""
    with responses_library.RequestsMock() as mock:
        yield mock


@pytest.fixture
def point(client: FlaskClient) -> Callable[..., None]:
    """A function that sets a provider's address and enables it: ``point("http://...")``."""

    def set_base_url(base_url: str, provider: str = "ollama", **more: Any) -> None:
        body = {"base_url": base_url, "enabled": True, **more}
        response = client.patch(f"/api/providers/{provider}", json=body)
        assert response.status_code == 200, response.text

    return set_base_url


@pytest.fixture
def ollama(httpserver: HTTPServer, point: Callable[..., None]) -> HTTPServer:
    """A loopback server; it is the address of the provider `ollama`."""
    point(httpserver.url_for("/v1"))
    return httpserver


def replay(server: HTTPServer, path: str, name: str, **match: Any) -> None:
    """Let *server* answer *path* with the recording *name*."""
    recorded = recording(name)

    def answer(_: Request) -> Response:
        return Response(recorded.body, recorded.status, content_type=recorded.content_type)

    server.expect_request(path, **match).respond_with_handler(answer)


def events(response: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of an event-stream response."""
    found = []
    for block in response.get_data(as_text=True).split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found

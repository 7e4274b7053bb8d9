"""What ``/api/health`` tells, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.config import Config
from app.container import Services
from app.services.jobs import queue
from app.version import __version__
from tests.engine.process import wait_until

KEY = "a-key-of-this-server"
LIMIT = 20  # seconds


def _health(client: FlaskClient, **headers: str) -> dict[str, Any]:
    response = client.get("/api/health", headers=headers)
    assert response.status_code == 200
    assert response.json is not None
    return response.json


@pytest.fixture
def kept(config: Config) -> Iterator[Flask]:
    """An app with a key, whose kept providers are damaged."""
    config.data_dir.mkdir(exist_ok=True)
    (config.data_dir / "providers.json").write_text("{")
    app = create_app(replace(config, api_key=KEY))
    yield app
    app.extensions["services"].close()


def test_health_without_the_key_tells_the_status_only(kept: Flask, config: Config) -> None:
    client = kept.test_client()

    nothing = _health(client)
    wrong = _health(client, Authorization="Bearer wrong")
    everything = _health(client, Authorization=f"Bearer {KEY}")

    assert nothing == wrong == {"status": "degraded", "version": "", "warnings": []}
    assert everything["version"] == __version__
    assert str(config.data_dir) in everything["warnings"][0]


def test_health_is_degraded_while_background_work_fails(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_RECOVERY_INTERVAL", 0.01)
    services: Services = app.extensions["services"]

    def rename(old: str, new: str) -> None:
        with services.database.session() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    before = _health(client)
    services.jobs.start()
    rename("pulls", "away")
    wait_until(lambda: _health(client)["status"] == "degraded", LIMIT)
    said = _health(client)["warnings"]
    rename("away", "pulls")
    wait_until(lambda: _health(client)["status"] == "ok", LIMIT)

    assert before["status"] == "ok"
    assert said[0].startswith("Background work fails (recovery of pulls): The database")
    assert str(services.config.data_dir) not in said[0]


def test_stopped_background_work_is_no_failure(app: Flask) -> None:
    services: Services = app.extensions["services"]
    services.jobs.start()

    services.jobs.stop()

    assert services.failures == []

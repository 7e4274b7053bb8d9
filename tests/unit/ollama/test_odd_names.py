"""A model whose listed name no grammar allows costs nothing but itself."""

from __future__ import annotations

from typing import Any

import pytest
import responses
from flask.testing import FlaskClient

from tests.unit.updates.test_api import API, OLD, OLLAMA, digest
from tests.unit.updates.test_api import remote as remote  # a fixture

ODD = "odd name:latest"


@pytest.fixture
def odd(remote: responses.RequestsMock) -> responses.RequestsMock:
    """The same Ollama, which also lists a model that nobody could have typed."""
    stamp = "2026-01-01T00:00:00Z"
    models = [
        {"name": ODD, "size": 3, "digest": "0" * 64, "modified_at": stamp},
        {"name": "a:1", "size": 12, "digest": digest(OLD)[7:], "modified_at": stamp},
    ]
    remote.replace(responses.GET, f"{OLLAMA}/api/tags", json={"models": models})
    return remote


@pytest.mark.xfail(strict=True, reason="names that Ollama lists are parsed as if somebody had typed them")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("get", "/disk", None, 200),
        ("get", "/updates", None, 200),
        ("post", "/updates", {"dry_run": True}, 200),
        ("post", "/rollback", {"model": "a:1"}, 404),
        ("post", "/pull", {"model": "a:1", "dry_run": True}, 200),
    ],
)
def test_odd_listed_name_does_not_break(
    client: FlaskClient, odd: responses.RequestsMock, method: str, path: str, body: Any, status: int
) -> None:
    response = getattr(client, method)(f"{API}{path}", **({"json": body} if body else {}))

    assert response.status_code == status, response.text

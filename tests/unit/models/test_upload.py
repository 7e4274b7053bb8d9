"""Models that are made from an uploaded file."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
import responses
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.config import Config
from tests.conftest import events
from tests.wire import replay

BASE = "http://localhost:11434"
OLLAMA = "/api/providers/ollama"
GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + b"\0weights" * 300_000  # more than is read at a time
DIGEST = f"sha256:{hashlib.sha256(GGUF).hexdigest()}"
BLOB = f"{BASE}/api/blobs/{DIGEST}"


def _sent(wire: responses.RequestsMock, path: str) -> Any:
    return next(json.loads(call.request.body) for call in wire.calls if call.request.url == BASE + path)


def _upload(client: FlaskClient, content: bytes = GGUF, **query: str) -> TestResponse:
    return client.post(
        f"{OLLAMA}/create?{urlencode({'model': 'mine', **query})}",
        data=content,
        content_type="application/octet-stream",
    )


def test_upload_is_sent_to_ollama_and_made_a_model(
    client: FlaskClient, wire: responses.RequestsMock, config: Config
) -> None:
    received = []

    def take(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        received.append((request.headers["Content-Length"], request.body))
        return 201, {}, ""

    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    wire.head(BLOB, status=404)
    wire.add_callback("POST", BLOB, take)
    replay(wire, "POST", BASE + "/api/create", "create_gguf_stream")
    before = set(config.data_dir.iterdir())

    response = _upload(client, digest=DIGEST, system="Be brief.")

    assert response.status_code == 200
    assert response.json is not None
    assert response.json["model"] == "mine:latest"
    assert received == [(str(len(GGUF)), GGUF)]
    assert _sent(wire, "/api/create") == {
        "model": "mine:latest",
        "system": "Be brief.",
        "files": {"model.gguf": DIGEST},
        "stream": True,
    }
    assert set(config.data_dir.iterdir()) == before


def test_upload_of_what_ollama_has_already_is_not_sent_again(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    wire.head(BLOB, status=200)
    replay(wire, "POST", BASE + "/api/create", "create_gguf_stream")

    got = events(_upload(client, stream="true"))

    assert [name for name, _ in got] == ["progress"] * 7 + ["done"]


def test_upload_over_another_model_wants_to_be_told_so(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    wire.head(BLOB, status=200)
    replay(wire, "POST", BASE + "/api/create", "create_gguf_stream")

    refused = _upload(client, model="smollm2:135m")
    asked_before = [call.request.path_url for call in wire.calls]
    done = _upload(client, model="smollm2:135m", overwrite="true")

    assert refused.status_code == 409
    assert refused.json is not None
    assert refused.json["error_type"] == "model_exists"
    assert asked_before == ["/api/tags"]  # the file is not even sent on
    assert done.status_code == 200


@pytest.mark.parametrize(
    ("content", "query", "reason"),
    [
        (b"", {}, "not_gguf"),
        (b"GGU", {}, "not_gguf"),
        (b"PK\x03\x04" + GGUF, {}, "not_gguf"),
        (GGUF, {"digest": "sha256:" + "0" * 64}, "digest_mismatch"),
    ],
)
def test_upload_of_another_file_is_400_before_anything_is_sent(
    client: FlaskClient,
    wire: responses.RequestsMock,
    config: Config,
    content: bytes,
    query: dict[str, str],
    reason: str,
) -> None:
    before = set(config.data_dir.iterdir())

    response = _upload(client, content, **query)

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "invalid_upload"
    assert response.json["details"]["reason"] == reason
    assert len(wire.calls) == 0
    assert set(config.data_dir.iterdir()) == before


@pytest.mark.parametrize("size", [len(GGUF) + 1, len(GGUF) * 2])
def test_upload_that_ends_early_is_400_and_nothing_is_kept(
    client: FlaskClient, wire: responses.RequestsMock, size: int
) -> None:
    response = client.post(
        f"{OLLAMA}/create?model=mine",
        data=GGUF,
        content_type="application/octet-stream",
        environ_overrides={"CONTENT_LENGTH": str(size), "wsgi.input_terminated": True},
    )

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["details"]["reason"] == "truncated"
    assert len(wire.calls) == 0


@pytest.mark.parametrize(
    "query",
    [{"model": ""}, {"model": "bad name"}, {"digest": "x"}, {"from": "a"}, {"nope": "1"}, {"stream": "yes"}],
)
def test_upload_of_bad_input_is_400_before_anything_is_sent(
    client: FlaskClient, wire: responses.RequestsMock, query: dict[str, str]
) -> None:
    response = _upload(client, **query)

    assert response.status_code == 400
    assert len(wire.calls) == 0


UPLOAD_FAULTS = [
    pytest.param({"body": requests.ConnectionError()}, 503, id="down"),
    pytest.param({"body": requests.ReadTimeout()}, 504, id="slow"),
    pytest.param({"json": {"error": "boom"}, "status": 500}, 500, id="5xx"),
    pytest.param({"json": {"error": "digest mismatch"}, "status": 400}, 400, id="4xx"),
]


@pytest.mark.parametrize(("answer", "status"), UPLOAD_FAULTS)
def test_upload_reports_upstream_fault(
    client: FlaskClient, wire: responses.RequestsMock, answer: dict[str, Any], status: int
) -> None:
    replay(wire, "GET", BASE + "/api/tags", "tags_models")
    wire.head(BLOB, status=404)
    wire.post(BLOB, **answer)

    assert _upload(client).status_code == status


@pytest.fixture
def small_client(config: Config) -> Iterator[FlaskClient]:
    """A backend that takes 100 bytes at most."""
    app = create_app(replace(config, max_upload=100))
    yield app.test_client()
    app.extensions["services"].close()


@pytest.mark.parametrize("announced", [True, False])
def test_upload_over_the_limit_is_413(
    small_client: FlaskClient, wire: responses.RequestsMock, announced: bool
) -> None:
    unknown = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}

    response = small_client.post(
        f"{OLLAMA}/create?model=mine",
        data=GGUF,
        content_type="application/octet-stream",
        environ_overrides={} if announced else unknown,
    )

    assert response.status_code == 413
    assert response.json is not None
    assert response.json["error_type"] == "body_too_large"
    assert "100 bytes" in response.json["hint"]
    assert len(wire.calls) == 0


def test_upload_that_does_not_fit_on_the_disk_is_507(
    client: FlaskClient, wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))

    response = _upload(client)

    assert response.status_code == 507
    assert response.json is not None
    assert response.json["error_type"] == "disk_full"
    assert response.json["details"] == {"bytes": len(GGUF), "free_bytes": 1000}


def test_upload_into_a_folder_that_cannot_be_written_is_503(
    client: FlaskClient, wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)

    response = _upload(client)

    assert response.status_code == 503
    assert response.json is not None
    assert response.json["error_type"] == "storage_failed"
    assert response.json["error"] == "The data folder cannot be used: Read-only file system."


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "text/plain", None])
def test_create_takes_json_or_a_file_only(client: FlaskClient, content_type: str | None) -> None:
    response = client.post(f"{OLLAMA}/create?model=mine", data=GGUF, content_type=content_type)

    assert response.status_code == 415


def test_other_routes_take_no_file(client: FlaskClient) -> None:
    response = client.post(f"{OLLAMA}/copy", data=GGUF, content_type="application/octet-stream")

    assert response.status_code == 415

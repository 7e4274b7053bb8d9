"""Registries that send without end, redirect to this machine, or fill the disk."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from app.engine.models.store import ModelStore
from app.engine.pulls import registry as registry_module
from app.engine.pulls.pulls import Pulls
from app.engine.pulls.registry import Registry as Source
from app.engine.pulls.transfer import PullError
from app.model_name import ModelName
from tests.engine.process import EngineProcess
from tests.engine.test_pulls import NAME, WEIGHTS
from tests.raw_server import Connection, raw_server
from tests.registry import Registry, digest_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


def manifest_of(script: Any) -> Any:
    """Fetch a manifest from a registry that runs *script*."""
    with raw_server(script) as server:
        source = Source(ModelName.parse(f"127.0.0.1:{server.port}/library/m:t"), insecure=True)
        try:
            return source.manifest()
        finally:
            source.close()


def drip(connection: Connection, head: bytes) -> None:
    connection.send(head)
    while True:
        connection.send(b"x")
        time.sleep(0.01)  # a byte is always under way: no read times out


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD], ids=["head", "body"])
def test_manifest_that_drips_without_end_fails(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_HEAD_SECONDS", 0.5)
    monkeypatch.setattr(registry_module, "_MANIFEST_SECONDS", 0.5)

    with pytest.raises(PullError, match="pull model manifest: "):
        manifest_of(lambda connection: drip(connection, head))


def test_manifest_without_end_fails() -> None:
    def flood(connection: Connection) -> None:
        connection.send(HEAD)
        while True:
            connection.send(b"[" * 65536)

    with pytest.raises(PullError, match="it is longer than 4194304 bytes"):
        manifest_of(flood)


LAYER = {"mediaType": "x", "digest": "sha256:" + "a" * 64, "size": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"config":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"layers":[{"digest":"sha256:' + b"a" * 64 + b'","size":' + b"9" * 5000 + b"}]}",
        json.dumps({"config": LAYER, "layers": [LAYER] * 1001}).encode(),
        b'{"layers":NaN}',
        b"\xff\xfe",
        b"",
    ],
    ids=["deep", "deep-object", "digits", "layers", "nan", "no-utf-8", "empty"],
)
def test_manifest_that_is_odd_fails_in_words(body: bytes) -> None:
    with pytest.raises(PullError, match="pull model manifest: it "):
        manifest_of(lambda connection: connection.send(HEAD + body))


def test_failure_of_a_registry_is_cut() -> None:
    def fail(connection: Connection) -> None:
        connection.send(HEAD.replace(b"200 OK", b"500 No") + b"x" * 100_000)

    with pytest.raises(PullError) as caught:
        manifest_of(fail)

    assert len(str(caught.value)) < 1100


def test_pull_that_waits_for_the_head_of_an_answer_can_be_interrupted() -> None:
    asked, over = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        asked.set()
        over.wait(60)

    with raw_server(wait) as server:
        source = Source(ModelName.parse(f"127.0.0.1:{server.port}/library/m:t"), insecure=True)
        interrupter = threading.Thread(target=lambda: asked.wait(30) and source.interrupt())
        interrupter.start()
        try:
            with pytest.raises(PullError):  # else after 30 s
                source.manifest()
        finally:
            over.set()
            interrupter.join()
            source.close()


@pytest.mark.parametrize("of_manifest", [True, False], ids=["manifest", "blob"])
def test_redirect_to_another_service_of_this_machine_is_refused(
    store: ModelStore, registry: Registry, of_manifest: bool
) -> None:
    registry.add_model(NAME, {"model": WEIGHTS})
    name = ModelName.parse(registry.name(NAME))
    with raw_server(lambda connection: connection.send(HEAD + WEIGHTS)) as service:
        target = f"{service.url}/api/health"
        if of_manifest:
            registry.faults.redirect_to = target
        else:
            registry.faults.redirect_blobs_to = target

        with pytest.raises(
            PullError, match="a registry on this machine or its network may redirect to itself"
        ):
            list(Pulls(store).pull(name, insecure=True, gone=lambda: False))

        assert service.requests == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 MB, which holds the bundled model and little else."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.live
def test_full_disk_is_told_in_words(small_disk: Path, registry: Registry) -> None:
    registry.add_model(NAME, {"model": WEIGHTS})
    content = WEIGHTS * 2
    with EngineProcess(small_disk / "models") as engine:
        upload = engine.post(f"/api/blobs/{digest_of(content)}", data=content)
        pull = engine.post("/api/pull", {"model": registry.name(NAME), "insecure": True, "stream": False})
        _fill(small_disk)
        copy = engine.post("/api/copy", {"source": "smollm2:135m", "destination": "copy:x"})
        system = {"model": "made:x", "from": "smollm2:135m", "system": "x" * 9000}
        created = engine.post("/api/create", system | {"stream": False})
        streamed = engine.post("/api/create", system)

        assert engine.get("/api/tags").json()["models"][0]["name"] == "smollm2:135m"
        log = engine.log

    for answer in (upload, copy, created):
        assert (answer.status_code, answer.json()["error"]) == (
            500,
            "the models folder: no space left on device",
        )
    assert pull.status_code == 500
    assert "no space left on device" in pull.json()["error"]
    assert json.loads(streamed.text.splitlines()[-1]) == {
        "error": "the models folder: no space left on device"
    }
    assert "Traceback" not in log
    assert not list((small_disk / "models" / "blobs").glob("upload-*"))


@pytest.mark.live
def test_body_that_does_not_fit_into_the_temporary_folder_closes_its_connection(
    small_disk: Path, tmp_path: Path
) -> None:
    content = WEIGHTS * 2
    with EngineProcess(tmp_path / "models", env={"TMPDIR": str(small_disk)}) as engine:
        first = engine.post(f"/api/blobs/{digest_of(WEIGHTS)}", data=WEIGHTS)
        assert first.status_code == 201  # else Python would choose another folder
        _fill(small_disk)
        with pytest.raises(requests.ConnectionError):
            engine.post(f"/api/blobs/{digest_of(content)}", data=content)

        assert engine.get("/api/tags").status_code == 200
        assert f"cannot be stored in {small_disk}: No space left on device" in engine.log
        assert "Traceback" not in engine.log


def _fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)

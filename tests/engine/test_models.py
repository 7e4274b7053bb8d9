"""Copy, create, delete and upload on a running engine."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.engine.conftest import MODEL
from tests.engine.process import EngineProcess
from tests.registry import digest_of, smollm2_file
from tests.wire import recording

pytestmark = pytest.mark.live

WEIGHTS_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def names(engine: EngineProcess) -> list[str]:
    return [model["name"] for model in engine.get("/api/tags").json()["models"]]


def create(engine: EngineProcess, **body: Any) -> list[Any]:
    return [json.loads(line) for line in engine.post("/api/create", body).iter_lines()]


def delete(engine: EngineProcess, model: str) -> int:
    return engine.request("DELETE", "/api/delete", json={"model": model}).status_code


def test_copy_has_the_digest_of_its_source_until_it_is_deleted(engine: EngineProcess) -> None:
    engine.post("/api/copy", {"source": MODEL, "destination": "twin"})

    digests = {m["name"]: m["digest"] for m in engine.get("/api/tags").json()["models"]}
    deleted = delete(engine, "TWIN")

    assert digests["twin:latest"] == digests[MODEL]
    assert deleted == 200
    assert "twin:latest" not in names(engine)
    assert engine.post("/api/show", {"model": MODEL}).status_code == 200


def test_created_model_shows_what_it_was_made_of(engine: EngineProcess) -> None:
    lines = create(
        engine,
        model="derived",
        system="Talk like a pirate.",
        parameters={"temperature": 0.1, "num_ctx": 2048},
        license=["MIT", "more"],
        messages=[{"role": "user", "content": "Ahoy"}],
        **{"from": MODEL},
    )

    shown = engine.post("/api/show", {"model": "derived"}).json()
    delete(engine, "derived")
    assert lines[-2:] == [{"status": "writing manifest"}, {"status": "success"}]
    assert shown["system"] == "Talk like a pirate."
    assert shown["license"] == "MIT\nmore"
    assert shown["messages"] == [{"role": "user", "content": "Ahoy"}]
    assert shown["details"]["parent_model"] == MODEL
    assert "num_ctx                        2048" in shown["parameters"]
    assert "SYSTEM Talk like a pirate.\n" in shown["modelfile"]
    assert "PARAMETER temperature 0.1\n" in shown["modelfile"]


def test_tools_template_makes_the_model_capable_of_tools(engine: EngineProcess) -> None:
    template = json.loads(recording("show_tools_model").body)["template"]
    create(engine, model="handy", template=template, **{"from": MODEL})

    shown = engine.post("/api/show", {"model": "handy"}).json()

    delete(engine, "handy")
    recorded = json.loads(recording("show_tools_model").body)
    assert shown["capabilities"] == recorded["capabilities"]
    assert shown["template"] == recorded["template"]
    assert shown["parameters"] == recorded["parameters"]
    start = shown["modelfile"].index("TEMPLATE")
    assert shown["modelfile"][start:] in recorded["modelfile"]


def test_uploaded_gguf_becomes_a_model(engine: EngineProcess) -> None:
    assert digest_of(smollm2_file()) == WEIGHTS_DIGEST
    again = engine.request("POST", f"/api/blobs/{WEIGHTS_DIGEST}", data=b"not read")

    lines = create(engine, model="uploaded", files={"x.gguf": WEIGHTS_DIGEST})

    shown = engine.post("/api/show", {"model": "uploaded"}).json()
    delete(engine, "uploaded")
    assert again.status_code == 200
    assert [line["status"] for line in lines][:1] == ["parsing GGUF"]
    assert {"status": "using autodetected template chatml"} in lines
    assert shown["details"] == json.loads(recording("show_ok").body)["details"]
    assert shown["template"] == json.loads(recording("show_ok").body)["template"]


def test_upload_that_is_no_gguf_becomes_no_model(engine: EngineProcess) -> None:
    content = os.urandom(1000)
    digest = digest_of(content)

    uploaded = engine.request("POST", f"/api/blobs/{digest}", data=content)
    found = engine.request("HEAD", f"/api/blobs/{digest}")
    lines = create(engine, model="noise", files={"x.gguf": digest})

    assert (uploaded.status_code, found.status_code) == (201, 200)
    assert lines[-1] == {"error": "invalid file magic"}
    assert "noise:latest" not in names(engine)


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"x.gguf": "sha256:" + "1" * 64}, "no such file or directory"),
        ({"x.gguf": "nonsense"}, "invalid digest format"),
    ],
)
def test_create_from_a_missing_blob_fails_in_the_stream(
    engine: EngineProcess, files: dict[str, str], error: str
) -> None:
    lines = create(engine, model="derived3", files=files)

    assert lines[0] == {"status": "parsing GGUF"}
    assert error in lines[-1]["error"]


def test_verbose_show_has_the_vocabulary(engine: EngineProcess) -> None:
    shown = engine.post("/api/show", {"model": MODEL, "verbose": True}).json()

    assert len(shown["model_info"]["tokenizer.ggml.tokens"]) == 49152


def test_empty_store_is_listed_as_ollama_lists_it(own_engine: EngineProcess) -> None:
    delete(own_engine, MODEL)

    tags, models = own_engine.get("/api/tags"), own_engine.get("/v1/models")

    assert tags.content == recording("tags_empty").body
    assert models.content == recording("v1_models_empty").body


def test_deleted_model_stays_loaded_but_is_not_found(own_engine: EngineProcess) -> None:
    own_engine.post("/api/generate", {"model": MODEL})

    delete(own_engine, MODEL)
    chat = own_engine.post("/api/chat", {"model": MODEL, "messages": []})

    assert [model["name"] for model in own_engine.get("/api/ps").json()["models"]] == [MODEL]
    assert chat.status_code == 404

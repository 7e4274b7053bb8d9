"""The providers and the settings that a person changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer

from app import create_app
from app.config import ROOT, Config
from app.upstream.failures import clean
from tests.conftest import replay
from tests.raw_server import Connection, raw_server

KEY = "sk-0123456789abcdef"
OWN = {"id": "mine", "name": "Mine", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key": KEY}


def test_shipped_providers_are_disabled_and_have_no_keys() -> None:
    shipped = json.loads((ROOT / "providers.json").read_text())

    assert (
        shipped["ollama"].items()
        >= {
            "name": "Ollama",
            "enabled": False,
            "api_key": "",
            "model": "llama3.2",
            "base_url": "http://localhost:11434/v1",
            "status": "disconnected",
            "last_checked": "",
        }.items()
    )
    assert {"openai", "groq", "openrouter", "cerebras", "sambanova", "lmstudio", "llamacpp", "vllm"} < set(
        shipped
    )
    assert not any(p["enabled"] or p["api_key"] for p in shipped.values())


def test_list_providers_is_an_object_by_id_without_keys(client: FlaskClient) -> None:
    client.post("/api/providers", json=OWN)

    response = client.get("/api/providers")

    assert response.json is not None
    assert {"ollama", "openai", "mine"} < set(response.json)
    assert KEY not in response.text
    assert response.json["mine"]["api_key_set"] is True
    assert response.json["mine"]["api_key_last4"] == "cdef"
    assert response.json["openai"]["api_key_set"] is False
    assert all("api_key" not in provider for provider in response.json.values())


def test_changes_survive_a_restart_and_leave_the_shipped_file_alone(
    client: FlaskClient, config: Config
) -> None:
    shipped = config.providers_file.read_bytes()
    client.patch("/api/providers/openai", json={"enabled": True, "api_key": KEY})

    again = create_app(config).test_client().get("/api/providers/openai").json

    assert again is not None
    assert again["enabled"] is True
    assert again["api_key_source"] == "settings"
    assert config.providers_file.read_bytes() == shipped
    kept = config.data_dir / "providers.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text()) == {"openai": {"enabled": True, "api_key": KEY}}


def test_enable_is_for_the_run_and_the_person_has_the_last_word(config: Config) -> None:
    client = create_app(replace(config, enable=("ollama",))).test_client()
    assert client.get("/api/providers/ollama").json["enabled"] is True  # type: ignore[index]

    client.patch("/api/providers/ollama", json={"enabled": False})

    assert client.get("/api/providers/ollama").json["enabled"] is False  # type: ignore[index]
    plain = create_app(replace(config, enable=(), data_dir=config.data_dir / "x")).test_client()
    assert plain.get("/api/providers/ollama").json["enabled"] is False  # type: ignore[index]


def test_key_comes_from_the_environment_unless_one_is_set(config: Config) -> None:
    app = create_app(replace(config, environ={"OPENAI_API_KEY": "sk-environment-0001"}))
    client = app.test_client()

    from_environment = client.get("/api/providers/openai").json
    client.patch("/api/providers/openai", json={"api_key": KEY})
    from_settings = client.get("/api/providers/openai").json

    assert from_environment is not None
    assert from_environment["api_key_source"] == "OPENAI_API_KEY"
    assert from_environment["api_key_last4"] == "0001"
    assert from_settings is not None
    assert from_settings["api_key_source"] == "settings"
    assert from_settings["api_key_last4"] == "cdef"


def test_short_key_shows_none_of_its_characters(client: FlaskClient) -> None:
    response = client.patch("/api/providers/openai", json={"api_key": "secret"})

    assert response.json is not None
    assert response.json["api_key_set"] is True
    assert response.json["api_key_last4"] == ""


def test_own_provider_lives_from_post_to_delete(client: FlaskClient) -> None:
    created = client.post("/api/providers", json=OWN)
    assert created.status_code == 201
    assert created.headers["Location"] == "/api/providers/mine"
    assert created.json is not None
    assert created.json["custom"] is True

    assert client.post("/api/providers", json=OWN).status_code == 409
    assert client.delete("/api/providers/mine").status_code == 204
    assert client.get("/api/providers/mine").status_code == 404
    assert client.delete("/api/providers/mine").status_code == 404


def test_shipped_provider_cannot_be_deleted(client: FlaskClient) -> None:
    response = client.delete("/api/providers/openai")

    assert response.status_code == 409
    assert response.json is not None
    assert response.json["error_type"] == "provider_built_in"
    assert client.get("/api/providers/openai").status_code == 200


def test_put_of_what_was_read_keeps_the_key(client: FlaskClient) -> None:
    client.post("/api/providers", json=OWN)
    read = client.get("/api/providers/mine").json
    assert read is not None

    response = client.put("/api/providers/mine", json={**read, "name": "Renamed"})

    assert response.status_code == 200
    assert response.json is not None
    assert response.json["name"] == "Renamed"
    assert response.json["api_key_last4"] == "cdef"
    assert response.json["custom"] is True


def test_put_resets_what_is_left_out(client: FlaskClient) -> None:
    client.post("/api/providers", json={**OWN, "enabled": True})

    response = client.put("/api/providers/mine", json={"name": "M", "base_url": "http://127.0.0.1:8/v1"})

    assert response.json is not None
    assert (response.json["enabled"], response.json["model"]) == (False, "")


def test_empty_key_removes_it(client: FlaskClient) -> None:
    client.post("/api/providers", json=OWN)

    response = client.patch("/api/providers/mine", json={"api_key": ""})

    assert response.json is not None
    assert response.json["api_key_set"] is False


@pytest.mark.parametrize(("path", "kept"), [("/v1/other", True), ("", False)])
def test_key_stays_with_its_server(client: FlaskClient, path: str, kept: bool) -> None:
    client.post("/api/providers", json={**OWN, "enabled": True})
    moved = OWN["base_url"] + path if kept else "http://127.0.0.1:10/v1"

    patched = client.patch("/api/providers/mine", json={"base_url": moved}).json

    assert patched is not None
    assert patched["api_key_set"] is kept
    assert patched["enabled"] is True


def test_key_of_the_environment_is_for_the_shipped_address_only(config: Config) -> None:
    app = create_app(replace(config, environ={"OPENAI_API_KEY": "sk-environment-0001"}))
    client = app.test_client()

    moved = client.patch("/api/providers/openai", json={"base_url": "http://127.0.0.1:9/v1"}).json

    assert moved is not None
    assert moved["api_key_set"] is False


def test_unreadable_changes_are_an_error_and_not_called_damaged(client: FlaskClient, config: Config) -> None:
    changes = config.data_dir / "providers.json"
    changes.symlink_to(changes)  # a circle

    response = client.get("/api/providers")

    assert response.status_code == 503
    assert response.json is not None
    assert response.json["error_type"] == "storage_failed"
    assert changes.is_symlink()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "id"),
        ({**OWN, "base_url": "http://a..b/v1"}, "base_url"),
        ({**OWN, "base_url": f"http://{'a' * 64}.example/v1"}, "base_url"),
        ({**OWN, "enabled": 1}, "enabled"),
        ({**OWN, "id": "../x"}, "id"),
        ({**OWN, "id": "Upper"}, "id"),
        ({**OWN, "id": "a\n"}, "id"),
        ({**OWN, "id": 5}, "id"),
        ({**OWN, "base_url": "localhost:11434"}, "base_url"),
        ({**OWN, "base_url": "file:///etc/passwd"}, "base_url"),
        ({**OWN, "base_url": "http://user:pw@host/v1"}, "base_url"),
        ({**OWN, "base_url": "http://host:99999/v1"}, "base_url"),
        ({**OWN, "base_url": "http://[::1/v1"}, "base_url"),
        ({**OWN, "base_url": "http://host/v1?x=1"}, "base_url"),
        ({**OWN, "enabled": "yes"}, "enabled"),
        ({**OWN, "enabled": None}, "enabled"),
        ({**OWN, "kind": "other"}, "kind"),
        ({**OWN, "name": " "}, "name"),
        ({**OWN, "api_key": "a\nb"}, "api_key"),
        ({**OWN, "nope": 1}, "nope"),
    ],
)
def test_create_of_bad_input_is_400_and_names_the_field(
    client: FlaskClient, body: dict[str, Any], field: str
) -> None:
    response = client.post("/api/providers", json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert field in response.json["details"]


def test_unknown_provider_is_404_with_those_there_are(client: FlaskClient) -> None:
    response = client.get("/api/providers/nope")

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error_type"] == "provider_not_found"
    assert "ollama" in response.json["details"]["available"]


@pytest.mark.parametrize("content", ["{", '{"ollama": 5}', '{"ollama": {"enabled": "yes"}}', "[]"])
def test_damaged_changes_are_reported_and_kept(client: FlaskClient, config: Config, content: str) -> None:
    kept = config.data_dir / "providers.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(content)

    health = client.get("/api/health").json
    provider = client.get("/api/providers/ollama")

    assert health is not None
    assert health["status"] == "degraded"
    assert str(kept) in health["warnings"][0]
    assert provider.status_code == 200
    assert kept.read_text() == content


def test_test_of_a_working_ollama_is_connected_and_kept(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, "/api/version", "version")
    replay(ollama, "/api/tags", "tags_models")

    outcome = client.post("/api/providers/ollama/test").json

    assert outcome is not None
    assert outcome["status"] == "connected"
    assert outcome["version"] == "0.33.0-rc2"
    assert outcome["models"] == 2
    provider = client.get("/api/providers/ollama").json
    assert provider is not None
    assert provider["status"] == "connected"
    assert provider["last_checked"] == outcome["last_checked"]
    assert provider["last_checked"].endswith("Z")


def test_test_of_an_ollama_without_models_says_so(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, "/api/version", "version")
    replay(ollama, "/api/tags", "tags_empty")

    outcome = client.post("/api/providers/ollama/test").json

    assert outcome is not None
    assert outcome["status"] == "no_models"
    assert "pull" in outcome["hint"].lower()


def test_test_of_something_else_is_not_ollama(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request("/api/version").respond_with_data("<html>", content_type="text/html")

    assert client.post("/api/providers/ollama/test").json["status"] == "not_ollama"  # type: ignore[index]


def test_test_of_a_refused_port_says_how_to_start_it(client: FlaskClient, point: Any) -> None:
    with raw_server(lambda _: None) as server:
        free_port = server.url
    point(f"{free_port}/v1")

    outcome = client.post("/api/providers/ollama/test").json

    assert outcome is not None
    assert outcome["status"] == "connection_refused"
    assert outcome["hint"]


def test_test_of_a_silent_server_is_a_timeout(client: FlaskClient, point: Any) -> None:
    client.put("/api/settings", json={"timeouts": {"list": 0.2}})
    with raw_server(Connection.wait_for_close) as server:
        point(f"{server.url}/v1")
        point(f"{server.url}/v1", "lmstudio")

        native = client.post("/api/providers/ollama/test").json
        compatible = client.post("/api/providers/lmstudio/test").json

    assert native["status"] == "timeout"  # type: ignore[index]
    assert compatible["status"] == "timeout"  # type: ignore[index]


@pytest.mark.parametrize("secret", [KEY, "x" * 990 + KEY])
def test_upstream_text_never_shows_the_key(secret: str) -> None:
    assert KEY not in clean(f"denied for {secret} !", KEY)
    assert KEY[:12] not in clean("x" * 990 + KEY, KEY)


def test_test_of_an_unknown_host_is_an_error(client: FlaskClient, point: Any) -> None:
    point("http://no-such-host.invalid/v1")

    outcome = client.post("/api/providers/ollama/test").json

    assert outcome is not None
    assert outcome["status"] == "error"
    assert "not known" in outcome["message"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"response_json": {"object": "list", "data": [{"id": "a"}]}}, "connected"),
        ({"response_json": {"data": None}}, "no_models"),
        ({"response_json": {"error": {"message": f"bad key {KEY}"}}, "status": 401}, "unauthorized"),
        ({"response_json": {"detail": "?"}}, "error"),
    ],
)
def test_test_of_a_compatible_provider_tells_its_state(
    client: FlaskClient, httpserver: HTTPServer, point: Any, answer: dict[str, Any], status: str
) -> None:
    point(httpserver.url_for("/v1"), "openai", api_key=KEY)
    httpserver.expect_request("/v1/models").respond_with_json(**answer)

    response = client.post("/api/providers/openai/test")

    assert response.json is not None
    assert response.json["status"] == status
    assert KEY not in response.text


def test_models_of_a_compatible_provider_are_listed(
    client: FlaskClient, httpserver: HTTPServer, point: Any
) -> None:
    point(httpserver.url_for("/v1"), "openai", api_key=KEY)
    httpserver.expect_request("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).respond_with_json(
        {"data": [{"id": "gpt-x", "created": 5, "owned_by": "me", "more": 1}]}
    )

    response = client.get("/api/providers/openai/models")

    assert response.json == {
        "models": [{"id": "gpt-x", "name": "gpt-x", "created": 5, "owned_by": "me"}],
        "total": 1,
    }


def test_settings_are_changed_one_by_one_and_survive(client: FlaskClient, config: Config) -> None:
    before = client.get("/api/settings").json
    assert before is not None
    assert before["default_provider"] == "ollama"

    client.put("/api/settings", json={"system_prompt": "Be brief.", "timeouts": {"idle": 9}})
    again = create_app(config).test_client().get("/api/settings").json

    assert again == {**before, "system_prompt": "Be brief.", "timeouts": {**before["timeouts"], "idle": 9}}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"temperature": 3}, 400, "temperature"),
        ({"temperature": "warm"}, 400, "temperature"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"timeouts": {"idle": 0}}, 400, "timeouts"),
        ({"timeouts": {"nope": 1}}, 400, "timeouts"),
        ({"nope": 1}, 400, "nope"),
        ({"default_provider": None}, 400, "default_provider"),
        ({"default_provider": "nope"}, 404, "provider"),
        ({"fallback_provider": "nope"}, 404, "provider"),
    ],
)
def test_settings_of_bad_input_are_refused(
    client: FlaskClient, config: Config, body: dict[str, Any], status: int, field: str
) -> None:
    response = client.put("/api/settings", json=body)

    assert response.status_code == status
    assert response.json is not None
    assert field in response.json["details"]
    assert not Path(config.data_dir / "settings.json").exists()


def test_defaults_of_models_are_changed_one_by_one(client: FlaskClient) -> None:
    client.put("/api/settings", json={"model_defaults": {"a:1": {"num_ctx": 1024}, "b:1": {"think": False}}})
    client.put("/api/settings", json={"model_defaults": {"c:1": {"keep_alive": "5m"}, "a:1": None}})

    config = client.get("/api/settings").json

    assert config is not None
    assert set(config["model_defaults"]) == {"b:1", "c:1"}

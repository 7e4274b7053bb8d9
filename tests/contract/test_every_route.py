"""Every route is documented, protected, and answers failures with the error body and a request id."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from werkzeug.test import TestResponse

from app import create_app
from app.body_limits import BODY_LIMIT, CHAT_BODY_LIMIT, accepted_by
from app.config import ROOT, Config
from app.errors import ServiceError

KEY = "a-long-random-text"
PUBLIC = {"/api/health", "/api/docs", "/api/docs/assets/swagger-ui.css", "/api/openapi.json"}


JUNK = [
    b"{",
    b"[1]",
    b'"x"',
    b"\xff",
    b"{}{}",
    b"[" * 100_000,
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"message": "\\ud800"}',
    b'{"name": "\\ud83d", "base_url": "http://x"}',
    b'{"messages": [{}], "prompt": "x", "input": "x", "temperature": NaN}',
]


def _routes(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield each method of every route, with a path in which parameters are filled in."""
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<path:filename>", "swagger-ui.css")
        path = re.sub(r"<[^>]+>", "ollama", path)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, path


def _assert_error_body(response: TestResponse, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.content_type == "application/json"
    body = response.json
    assert body is not None
    if f"{response.request.path}/".startswith("/v1/"):
        return _assert_openai_error(response, body)
    assert set(body) <= {"error", "error_type", "hint", "details", "request_id"}
    assert body["error"][0].isupper() or body["error"][0].islower()
    assert re.fullmatch(r"[a-z][a-z0-9_]*", body["error_type"])
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert "Traceback" not in response.text
    return body


def _assert_openai_error(response: TestResponse, body: dict[str, Any]) -> dict[str, Any]:
    """Check an error body of OpenAI's API; return it in the shape of this backend's error body."""
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*_error", error["type"])
    assert re.fullmatch(r"[a-z][a-z0-9_]*", error["code"])
    assert error["param"] is None or isinstance(error["param"], str)
    assert response.headers["X-Request-ID"]
    assert "Traceback" not in response.text
    return {"error": error["message"], "error_type": error["code"], "hint": error["message"]}


def test_every_api_route_is_documented(app: Flask, client: FlaskClient) -> None:
    spec = client.get("/api/openapi.json").json
    assert spec is not None
    hidden = {"/", "/api/docs", "/api/openapi.json", "/api/docs/assets/{filename}"}

    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        if path in hidden:
            continue
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            operation = spec["paths"][path][method.lower()]
            assert operation["summary"]
            assert "default" in operation["responses"]


def test_every_field_of_a_body_is_described_or_speaks_for_itself(client: FlaskClient) -> None:
    spec = client.get("/api/openapi.json").json
    assert spec is not None

    assert spec["components"]["schemas"]["Error"]["properties"].keys() == {
        "error",
        "error_type",
        "hint",
        "details",
        "request_id",
    }


def test_routes_for_openai_clients_document_their_own_error(client: FlaskClient) -> None:
    spec = client.get("/api/openapi.json").json
    assert spec is not None

    for path, operations in spec["paths"].items():
        for operation in (inner for method, inner in operations.items() if method != "parameters"):
            for status, answer in operation["responses"].items():
                if not status.startswith("2"):
                    schema = (
                        answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref")
                    )
                    assert (schema == "#/components/schemas/OpenAIError") is path.startswith("/v1"), path


def test_routes_that_can_stream_document_it(client: FlaskClient) -> None:
    spec = client.get("/api/openapi.json").json
    assert spec is not None

    def types(path: str, method: str) -> set[str]:
        return set(spec["paths"][path][method]["responses"]["200"]["content"])

    for path in ("/api/chat", "/api/chat/compare", "/api/providers/ollama/pull", "/v1/chat/completions"):
        assert types(path, "post") == {"application/json", "text/event-stream"}, path
    assert types("/api/providers/ollama/pulls/{id}/events", "get") == {"text/event-stream"}


def test_docs_come_from_this_machine_alone(client: FlaskClient) -> None:
    page = client.get("/api/docs").text

    assert not re.search(r"https?://", page)
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page):
        with client.get(asset) as response:
            assert response.status_code == 200, asset


def test_every_route_refuses_another_method_with_the_error_body(app: Flask, client: FlaskClient) -> None:
    for _, path in _routes(app):
        response = client.open(path, method="TRACE")

        body = _assert_error_body(response, 405)
        assert body["error_type"] == "method_not_allowed"
        assert response.headers["Allow"]


def test_every_route_refuses_a_foreign_host(app: Flask, client: FlaskClient) -> None:
    for method, path in _routes(app):
        response = client.open(path, method=method, headers={"Host": "evil.example:8002"})

        assert _assert_error_body(response, 403)["error_type"] == "host_not_allowed"


def test_description_is_whole_for_all_who_ask_at_once(app: Flask) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(lambda: app.test_client().get("/api/openapi.json", headers={"Host": "localhost"}))
            for _ in range(4)
        ]
    described = [answer.result().json for answer in asked]

    assert described[0]["paths"].keys() >= {"/api/chat", "/v1/models"}
    assert described == described[:1] * 4


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "x", "http://[::1"]
)
def test_every_route_refuses_a_foreign_origin(app: Flask, client: FlaskClient, origin: str) -> None:
    for method, path in _routes(app):
        response = client.open(path, method=method, headers={"Origin": origin})

        assert _assert_error_body(response, 403)["error_type"] == "origin_not_allowed"
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x"])
def test_every_route_refuses_what_a_page_of_another_site_loads(
    app: Flask, client: FlaskClient, site: str
) -> None:
    loaded = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
    for method, path in _routes(app):
        response = client.open(path, method=method, headers=loaded)

        assert _assert_error_body(response, 403)["error_type"] == "origin_not_allowed"


def test_link_on_another_site_opens_public_pages_only(app: Flask, client: FlaskClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for method, path in _routes(app):
        with client.open(path, method=method, headers=link) as response:
            is_open = method == "GET" and path in PUBLIC | {"/"}
            assert (response.status_code == 403) is not is_open, path
        framed = client.open(path, method=method, headers={**link, "Sec-Fetch-Dest": "iframe"})
        assert framed.status_code == 403


def test_pages_of_this_server_and_of_allowed_origins_are_served(config: Config) -> None:
    origin = "http://localhost:3000"
    client = create_app(replace(config, allowed_origins=(origin,))).test_client()

    accepted: tuple[dict[str, str], ...] = (
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Origin": origin},
        {"Sec-Fetch-Site": "cross-site", "Origin": origin},
    )
    for headers in accepted:
        assert client.get("/api/settings", headers=headers).status_code == 200
    own = {"Host": "localhost", "Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/settings", headers=own).status_code == 403


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "via"],
)
def test_every_route_refuses_a_proxy_when_there_is_no_key(
    app: Flask, client: FlaskClient, config: Config, name: str
) -> None:
    for method, path in _routes(app):
        response = client.open(path, method=method, headers={name: "127.0.0.1"})

        assert _assert_error_body(response, 403)["error_type"] == "key_required"

    with_key = create_app(replace(config, api_key=KEY)).test_client()
    sent = {name: "203.0.113.5", "X-API-Key": KEY}
    assert with_key.get("/api/settings", headers=sent).status_code == 200


def test_no_answer_can_be_framed_or_run(app: Flask, client: FlaskClient) -> None:
    for method, path in _routes(app):
        with client.open(path, method=method) as response:
            headers = response.headers

        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert ("script-src" in policy) is (path == "/api/docs")


def test_policy_of_the_docs_allows_their_inline_script_and_no_other(client: FlaskClient) -> None:
    response = client.get("/api/docs")

    scripts = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in response.headers["Content-Security-Policy"]
    assert not re.search(r"\son\w+=", response.text)  # no other inline script


def test_long_path_and_method_are_cut_in_the_log_and_in_the_answer(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    answers = [client.get("/" + "a" * 20_000), client.open("/api/chat", method="A" * 20_000)]

    assert all(len(record.getMessage()) < 400 for record in caplog.records)
    assert all(len(answer.data) < 600 for answer in answers)


def test_every_route_with_a_body_wants_json(app: Flask, client: FlaskClient) -> None:
    for method, path in _routes(app):
        if method in {"POST", "PUT", "PATCH"}:
            response = client.open(path, method=method, data="message=hi")

            assert _assert_error_body(response, 415)["error_type"] == "unsupported_media_type"


def test_every_route_that_wants_a_body_refuses_none_and_junk(app: Flask, client: FlaskClient) -> None:
    spec = client.get("/api/openapi.json").json
    assert spec is not None
    for template, operations in spec["paths"].items():
        path = re.sub(r"{\w+}", "ollama", template)
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            for junk in JUNK:
                response = client.open(
                    path, method=method.upper(), data=junk, content_type="application/json"
                )
                _assert_error_body(response, 400)
            if method in {"post", "put"} and template not in {"/api/settings", "/api/conversations"}:
                _assert_error_body(client.open(path, method=method.upper()), 400)


def test_every_route_wants_the_key_when_there_is_one(config: Config) -> None:
    app = create_app(replace(config, api_key=KEY))
    client = app.test_client()

    for method, path in _routes(app):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            with client.open(path, method=method, headers=headers) as response:
                if path in PUBLIC:
                    assert response.status_code == 200
                else:
                    assert _assert_error_body(response, 401)["error_type"] == "unauthorized"
                    assert KEY not in response.text


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_the_key_opens_the_door(config: Config, headers: dict[str, str]) -> None:
    client = create_app(replace(config, api_key=KEY)).test_client()

    assert client.get("/api/settings", headers=headers).status_code == 200


def test_unknown_address_is_404_with_the_error_body(client: FlaskClient) -> None:
    for path in ("/api/nope", "/v1", "/v1/nope", "/v1nope"):
        assert _assert_error_body(client.get(path), 404)["error_type"] == "not_found"


def test_root_leads_to_the_docs(client: FlaskClient) -> None:
    assert client.get("/", follow_redirects=True).request.path == "/api/docs"


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/chat", CHAT_BODY_LIMIT),
        ("/api/embeddings", CHAT_BODY_LIMIT),
        ("/v1/chat/completions", CHAT_BODY_LIMIT),
        ("/api/providers", BODY_LIMIT),
    ],
)
def test_body_over_the_limit_is_413_and_one_under_it_is_read(
    client: FlaskClient, path: str, limit: int
) -> None:
    def post(size: int) -> TestResponse:
        body = b'{"nope": "' + b"x" * (size - 12) + b'"}'
        return client.post(path, data=body, content_type="application/json")

    _assert_error_body(post(limit), 400)
    too_large = _assert_error_body(post(limit + 1), 413)
    assert too_large["error_type"] == "body_too_large"
    assert str(limit) in too_large["hint"]


def _body_limits(app: Flask, client: FlaskClient, config: Config) -> Iterator[tuple[str, str, str, int]]:
    """Yield method, path, media type and limit in bytes for each body that a view accepts."""
    spec = client.get("/api/openapi.json").json
    assert spec is not None
    for rule in app.url_map.iter_rules():
        operations = spec["paths"].get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        path = re.sub(r"<[^>]+>", "ollama", rule.rule)
        accepted = accepted_by(app.view_functions.get(rule.endpoint))
        for method in rule.methods or ():
            if "requestBody" in operations.get(method.lower(), {}):
                yield method, path, "application/json", accepted.limit
                if accepted.file_type:
                    yield method, path, accepted.file_type, config.max_upload


def test_every_view_that_takes_a_body_has_a_limit(app: Flask, client: FlaskClient, config: Config) -> None:
    limits = {}

    for method, path, media_type, limit in _body_limits(app, client, config):
        response = client.open(
            path,
            method=method,
            query_string={"model": "a", "digest": "sha256:" + "0" * 64},
            content_type=media_type,
            environ_overrides={"CONTENT_LENGTH": str(limit + 1)},
        )
        assert str(limit) in _assert_error_body(response, 413)["hint"], path
        limits[path, media_type] = limit

    assert limits.pop(("/api/providers/ollama/create", "application/octet-stream")) == config.max_upload
    assert {path for (path, _), limit in limits.items() if limit != BODY_LIMIT} == {
        "/api/chat",
        "/api/chat/compare",
        "/api/conversations/import",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
    }


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8002", True),
        ("127.0.0.1", True),
        ("[::1]:8002", True),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.5", False),
        ("", False),
        ("named.example", True),
    ],
)
def test_host_is_checked_against_what_is_served(config: Config, host: str, allowed: bool) -> None:
    client = create_app(replace(config, allowed_hosts=("named.example",))).test_client()

    response = client.get("/api/health", headers={"Host": host})

    assert response.status_code == (200 if allowed else 403)


@pytest.mark.parametrize(
    ("bound", "host", "allowed"),
    [
        ("0.0.0.0", "192.168.1.5:8002", True),
        ("0.0.0.0", "evil.example", False),
        ("192.168.1.5", "192.168.1.5", True),
        ("192.168.1.5", "192.168.1.6", False),
    ],
)
def test_host_of_a_server_for_the_network_is_its_address(
    config: Config, bound: str, host: str, allowed: bool
) -> None:
    client = create_app(replace(config, host=bound, api_key=KEY)).test_client()

    response = client.get("/api/health", headers={"Host": host})

    assert response.status_code == (200 if allowed else 403)


@pytest.mark.parametrize(("peer", "status"), [("192.168.1.9", 403), ("127.0.0.1", 200), ("::1", 200)])
def test_server_without_a_key_serves_its_own_machine_only(
    client: FlaskClient, peer: str, status: int
) -> None:
    response = client.get("/api/health", environ_overrides={"REMOTE_ADDR": peer})

    assert response.status_code == status


def test_own_origin_is_welcome(client: FlaskClient) -> None:
    response = client.get(
        "/api/health", headers={"Host": "localhost:8002", "Origin": "http://localhost:8002"}
    )

    assert response.status_code == 200


def test_allowed_origin_gets_cors_headers_and_a_preflight(config: Config) -> None:
    origin = "http://localhost:3000"
    client = create_app(replace(config, allowed_origins=(origin,), api_key=KEY)).test_client()
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}

    preflight = client.options("/api/chat", headers=asked)
    refused = client.get("/api/settings", headers={"Origin": origin})

    assert preflight.headers["Access-Control-Allow-Origin"] == origin
    assert refused.status_code == 401  # an allowed origin still needs the key
    assert refused.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("", False)]
)
def test_request_id_of_the_client_is_kept_when_it_is_harmless(
    client: FlaskClient, given: str, kept: bool
) -> None:
    response = client.get("/api/health", headers={"X-Request-ID": given})

    assert (response.headers["X-Request-ID"] == given) is kept
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_fault_of_the_program_is_500_and_tells_nothing(
    client: FlaskClient, ollama: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("secret thing")

    monkeypatch.setattr("app.services.ollama.service.OllamaService.list", break_down)

    response = client.get("/api/providers/ollama/models")

    body = _assert_error_body(response, 500)
    assert body["error_type"] == "internal_error"
    assert "secret thing" not in response.text


def test_secrets_are_not_logged(
    client: FlaskClient, ollama: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = "sk-0123456789abcdef"

    client.patch("/api/providers/ollama", json={"api_key": secret})
    client.post("/api/chat", json={"message": "Hi"})
    client.get("/api/providers/ollama/models?api_key=" + secret)

    assert secret not in caplog.text


def test_every_slug_is_documented() -> None:
    from app import security, server  # noqa: F401  # they define some of the errors

    documented = (ROOT / "docs" / "errors.md").read_text()

    def slugs(error: type[ServiceError]) -> Iterator[str]:
        yield error.error_type
        for subclass in error.__subclasses__():
            yield from slugs(subclass)

    for slug in {*slugs(ServiceError), "not_found", "method_not_allowed", "body_too_large"}:
        assert f"`{slug}`" in documented, slug


def test_every_setting_is_documented() -> None:
    documented = (ROOT / "docs" / "configuration.md").read_text()
    source = (ROOT / "app" / "config.py").read_text()

    names = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source)) - {"BACKEND_"}
    timeouts = {f"{name}_TIMEOUT" for name in ("CONNECT", "FIRST_BYTE", "IDLE", "LIST", "PULL")}
    assert len(names) >= 11
    for name in names | timeouts:
        assert f"`BACKEND_{name}`" in documented, name

"""``POST /api/chat`` in front of recorded and broken upstreams."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from app.upstream import transport as direct
from tests.certificates import Tls
from tests.conftest import events, replay
from tests.raw_server import Connection, raw_server
from tests.wire import recording

CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"
KEY = "sk-0123456789abcdef"
Point = Callable[..., None]


def _sent(server: HTTPServer, path: str = COMPLETIONS) -> dict[str, Any]:
    """Return the body of the last request for *path*."""
    requests = [request for request, _ in server.log if request.path == path]
    body: dict[str, Any] = json.loads(requests[-1].get_data())
    return body


def _answer(text: str = "Hello!", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": "stop"}], **more}


def test_chat_answers_in_the_contracts_shape(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_nostream")
    body = {"message": "Say hello.", "provider": "ollama", "system_prompt": "Be brief.", "model": "x"}

    response = client.post(CHAT, json=body)

    assert response.status_code == 200
    answer = response.json
    assert answer is not None
    assert answer["response"] == "Awesome, welcome to the city of Elysium!"
    assert (answer["provider"], answer["model"], answer["tokens"]) == ("ollama", "x", 14)
    assert isinstance(answer["tokens"], int)
    assert isinstance(answer["response_time"], float)
    assert answer["usage"] == {
        "prompt_tokens": 15,
        "completion_tokens": 14,
        "total_tokens": 29,
        "estimated": False,
    }
    assert answer["finish_reason"] == "stop"
    assert "notice" not in answer
    assert _sent(ollama) == {
        "model": "x",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
    }


def test_chat_streams_start_deltas_and_done(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_stream_include_usage")

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True})

    assert response.content_type == "text/event-stream; charset=utf-8"
    assert response.headers["X-Accel-Buffering"] == "no"
    got = events(response)
    assert [name for name, _ in got] == ["start"] + ["delta"] * 13 + ["done"]
    assert got[0][1] == {"request_id": response.headers["X-Request-ID"], "provider": "ollama", "model": "x"}
    done = got[-1][1]
    assert "".join(data["content"] for name, data in got if name == "delta") == done["response"]
    assert done["response"] == "Awesome, welcome to the city of Elysium!"
    assert (done["tokens"], done["usage"]["estimated"]) == (14, False)
    sent = _sent(ollama)
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})


def test_chat_sends_what_is_asked_and_no_max_tokens_to_ollama(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_nostream")
    asked = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "max_tokens": 5, "stop": "!"}

    response = client.post(CHAT, json={"message": "Hi", "model": "x", **asked})

    assert "max_tokens" in response.json["notice"]  # type: ignore[index]
    sent = _sent(ollama)
    assert {name: sent.get(name) for name in asked} == {**asked, "max_tokens": None, "stop": ["!"]}


def test_chat_sends_max_tokens_and_the_key_to_others(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai", api_key=KEY)
    httpserver.expect_request(COMPLETIONS, headers={"Authorization": f"Bearer {KEY}"}).respond_with_json(
        _answer()
    )

    response = client.post(CHAT, json={"message": "Hi", "provider": "openai", "max_tokens": 5})

    assert response.status_code == 200
    assert response.json is not None
    assert response.json["model"] == "gpt-4o-mini"
    assert _sent(httpserver)["max_tokens"] == 5


def test_chat_without_usage_estimates_and_says_so(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    httpserver.expect_request(COMPLETIONS).respond_with_json(_answer("one two three four"))

    answer = client.post(CHAT, json={"message": "Hi", "provider": "openai"}).json

    assert answer is not None
    assert answer["tokens"] == 5
    assert answer["usage"]["estimated"] is True


def test_chat_takes_a_conversation(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_nostream")
    client.put("/api/settings", json={"system_prompt": "From the settings.", "temperature": 0.3})
    turns = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]

    client.post(CHAT, json={"messages": turns, "message": "C", "model": "x"})
    both = _sent(ollama)
    client.post(CHAT, json={"messages": turns, "model": "x", "system_prompt": "", "temperature": 1})
    alone = _sent(ollama)
    own = [{"role": "system", "content": "Own."}, *turns]
    client.post(CHAT, json={"messages": own, "model": "x"})

    assert both["messages"] == [
        {"role": "system", "content": "From the settings."},
        *turns,
        {"role": "user", "content": "C"},
    ]
    assert both["temperature"] == 0.3
    assert alone["messages"] == turns
    assert alone["temperature"] == 1
    assert _sent(ollama)["messages"] == own


def test_chat_that_names_no_model_uses_the_configured_one(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_nostream")

    answer = client.post(CHAT, json={"message": "Hi"}).json

    assert answer is not None
    assert answer["model"] == "llama3.2"
    assert "notice" not in answer


@pytest.mark.parametrize("stream", [False, True])
def test_chat_falls_back_to_the_first_model_that_can_chat(
    client: FlaskClient, ollama: HTTPServer, stream: bool
) -> None:
    models = json.loads(recording("tags_models").body)
    models["models"][0]["capabilities"] = ["embedding"]
    ollama.expect_request("/api/tags").respond_with_json(models)
    recorded = recording("v1_chat_stream" if stream else "v1_chat_nostream")
    missing = recording("v1_chat_unknown")

    def chat(request: Request) -> Response:
        found = recorded if request.get_json()["model"] == "smollm2:135m" else missing
        return Response(found.body, found.status, content_type=found.content_type)

    ollama.expect_request(COMPLETIONS).respond_with_handler(chat)

    response = client.post(CHAT, json={"message": "Hi", "stream": stream})

    answer = events(response)[-1][1] if stream else response.json
    assert answer is not None
    assert answer["model"] == "smollm2:135m"
    assert "llama3.2" in answer["notice"]


def test_chat_with_an_absent_model_is_404_with_what_is_there(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_unknown")
    replay(ollama, "/api/tags", "tags_models")

    response = client.post(CHAT, json={"message": "Hi", "model": "unknown-model:1b"})

    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error_type"] == "model_not_found"
    assert response.json["details"]["available"] == ["llama3.2:1b", "smollm2:135m"]
    assert "/pull" in response.json["hint"]


def test_chat_on_an_ollama_without_models_says_what_to_pull(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_unknown")
    replay(ollama, "/api/tags", "tags_empty")

    response = client.post(CHAT, json={"message": "Hi"})

    assert response.status_code == 404
    assert "pull" in response.json["hint"].lower()  # type: ignore[index]


def test_chat_with_a_provider_without_a_configured_model_uses_its_first(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "lmstudio")
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "loaded"}]})
    httpserver.expect_request(COMPLETIONS).respond_with_json(_answer())

    answer = client.post(CHAT, json={"message": "Hi", "provider": "lmstudio"}).json

    assert answer is not None
    assert answer["model"] == "loaded"
    assert answer["notice"]


ERRORS = [
    pytest.param(("v1_chat_load_failure", None), 500, "upstream_error", id="load-failure"),
    pytest.param(("v1_chat_runner_killed_nostream", None), 500, "upstream_error", id="runner-killed"),
    pytest.param(("queue_busy_1", None), 503, "upstream_busy", id="busy"),
    pytest.param(("v1_chat_tools", None), 400, "upstream_rejected", id="rejected"),
    pytest.param((None, {"status": 401}), 401, "invalid_api_key", id="bad-key"),
    pytest.param((None, {"status": 429, "headers": {"Retry-After": "7"}}), 429, "rate_limited", id="rate"),
    pytest.param((None, {"status": 500}), 500, "upstream_error", id="5xx"),
    pytest.param((None, {"status": 404, "html": True}), 500, "invalid_upstream_response", id="no-v1"),
    pytest.param((None, {"status": 200, "html": True}), 500, "invalid_upstream_response", id="html"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("answer", "status", "error_type"), ERRORS)
def test_chat_reports_upstream_fault(
    client: FlaskClient, ollama: HTTPServer, stream: bool, answer: Any, status: int, error_type: str
) -> None:
    name, made = answer
    if name:
        replay(ollama, COMPLETIONS, name)
    else:
        html = made.get("html")
        body = "<html>hello</html>" if html else json.dumps({"error": {"message": f"no: {KEY}"}})
        ollama.expect_request(COMPLETIONS).respond_with_data(
            body,
            made["status"],
            headers=made.get("headers"),
            content_type="text/html" if html else "application/json",
        )
    client.patch("/api/providers/ollama", json={"api_key": KEY})

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": stream})

    assert response.status_code == status
    assert response.json is not None
    assert response.json["error_type"] == error_type
    assert KEY not in response.text
    assert response.headers.get("Retry-After") == ("7" if error_type == "rate_limited" else None)


@pytest.mark.parametrize("stream", [False, True])
def test_chat_with_a_disabled_provider_is_400(client: FlaskClient, stream: bool) -> None:
    response = client.post(CHAT, json={"message": "Hi", "provider": "openai", "stream": stream})

    assert response.status_code == 400
    assert response.json["error_type"] == "provider_disabled"  # type: ignore[index]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_with_an_unknown_provider_is_404(client: FlaskClient, stream: bool) -> None:
    response = client.post(CHAT, json={"message": "Hi", "provider": "nope", "stream": stream})

    assert response.status_code == 404
    assert response.json["error_type"] == "provider_not_found"  # type: ignore[index]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_with_a_refused_port_is_503(client: FlaskClient, point: Point, stream: bool) -> None:
    with raw_server(lambda _: None) as server:
        address = server.url
    point(f"{address}/v1")

    response = client.post(CHAT, json={"message": "Hi", "stream": stream})

    assert response.status_code == 503
    assert response.json["details"]["reason"] == "connection_refused"  # type: ignore[index]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_with_a_server_that_says_nothing_is_504(client: FlaskClient, point: Point, stream: bool) -> None:
    client.put("/api/settings", json={"timeouts": {"first_byte": 0.3, "idle": 0.3}})
    with raw_server(Connection.wait_for_close) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={"message": "Hi", "stream": stream})

    assert response.status_code == 504


def _streaming(*parts: bytes, end: bool = True) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.send_head()
        for part in parts:
            connection.send_chunk(part)
        if end:
            connection.end()

    return script


def _delta(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("script", "error_type", "text"),
    [
        pytest.param(
            _streaming(recording("v1_chat_runner_killed_midstream").body),
            "upstream_incomplete",
            None,
            id="runner-killed",
        ),
        pytest.param(_streaming(_delta("Hel")), "upstream_incomplete", "Hel", id="clean-end"),
        pytest.param(_streaming(_delta("Hel"), end=False), "upstream_incomplete", "Hel", id="cut"),
        pytest.param(
            _streaming(_delta("Hel"), b'data: {"error": {"message": "boom"}}\n\n'),
            "upstream_error",
            "Hel",
            id="in-stream-error",
        ),
        pytest.param(
            _streaming(_delta("Hel") + b'data: {"error": "boom"}\n\n'),
            "upstream_error",
            "Hel",
            id="error-in-the-same-read",
        ),
        pytest.param(
            _streaming(_delta("Hel"), b"data: {\n\n"), "invalid_upstream_response", "Hel", id="junk"
        ),
    ],
)
def test_stream_that_breaks_ends_with_one_error_and_loses_nothing(
    client: FlaskClient, point: Point, script: Callable[[Connection], None], error_type: str, text: str | None
) -> None:
    with raw_server(script) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True})
        got = events(response)

    assert response.status_code == 200
    names = [name for name, _ in got]
    assert names[0] == "start"
    assert set(names[1:-1]) == {"delta"}
    assert names[-1] == "error"
    assert got[-1][1]["error_type"] == error_type
    assert got[-1][1]["request_id"] == response.headers["X-Request-ID"]
    if text is not None:
        assert "".join(data["content"] for _, data in got[1:-1]) == text


def test_stream_that_falls_silent_ends_with_a_timeout(client: FlaskClient, point: Point) -> None:
    def stall(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(_delta("Hel"))
        connection.wait_for_close()

    client.put("/api/settings", json={"timeouts": {"idle": 0.3}})
    with raw_server(stall) as server:
        point(f"{server.url}/v1")

        got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))

    assert [name for name, _ in got] == ["start", "delta", "error"]
    assert got[-1][1]["error_type"] == "upstream_timeout"


def test_stream_without_done_but_with_a_finish_reason_is_complete(client: FlaskClient, point: Point) -> None:
    body = recording("v1_chat_stream").body.replace(b"data: [DONE]\n\n", b"")
    with raw_server(_streaming(body)) as server:
        point(f"{server.url}/v1")

        got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))

    assert got[-1][0] == "done"
    assert got[-1][1]["finish_reason"] == "stop"


def test_stream_survives_being_cut_anywhere(client: FlaskClient, point: Point) -> None:
    body = recording("v1_chat_stream_unicode").body
    with raw_server(_streaming(*(body[i : i + 7] for i in range(0, len(body), 7)))) as server:
        point(f"{server.url}/v1")

        got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))

    assert got[-1][0] == "done"
    assert "".join(data["content"] for name, data in got if name == "delta") == got[-1][1]["response"]


def test_stream_that_its_client_leaves_hangs_up_on_the_upstream(client: FlaskClient, point: Point) -> None:
    hung_up = threading.Event()

    def stall(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(_delta("Hel"))
        connection.wait_for_close()
        hung_up.set()

    with raw_server(stall) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}, buffered=False)
        first = next(iter(response.response))
        response.close()

        assert b"start" in first
        assert hung_up.wait(5)


def _leave(client: FlaskClient, body: dict[str, Any]) -> int:
    """Send a chat whose client has left by the first look."""
    environ = {"waitress.client_disconnected": lambda: True}
    return client.post(CHAT, json=body, environ_overrides=environ).status_code


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_before_the_upstream_answers_frees_it(
    client: FlaskClient,
    point: Point,
    tls: Tls,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
    encrypted: bool,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    hung_up = threading.Event()

    def say_nothing(connection: Connection) -> None:
        connection.wait_for_close()
        hung_up.set()

    with raw_server(say_nothing, tls.server if encrypted else None) as server:
        point(f"{server.url}/v1")

        _leave(client, {"message": "Hi", "model": "x", "stream": stream})

        assert hung_up.wait(5)


def test_chat_over_tls(client: FlaskClient, point: Point, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(recording("v1_chat_stream").body)
        connection.end()

    with raw_server(script, tls.server) as server:
        point(f"{server.url}/v1")
        got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))

    assert got[-1][0] == "done"


def test_certificate_that_nobody_vouches_for_is_told(client: FlaskClient, point: Point, tls: Tls) -> None:
    with raw_server(Connection.wait_for_close, tls.server) as server:
        point(f"{server.url}/v1")
        response = client.post(CHAT, json={"message": "Hi", "model": "x"})

    assert response.status_code == 503
    assert response.json is not None
    assert response.json["details"]["reason"] == "tls"
    assert "certificate" in response.json["hint"]


@pytest.mark.parametrize(
    ("base", "variable", "exempt", "is_proxied"),
    [
        ("https://provider.test", "HTTPS_PROXY", "", True),
        ("https://provider.test", "ALL_PROXY", "elsewhere.test", True),
        ("https://provider.test", "HTTPS_PROXY", "provider.test", False),
        ("https://localhost", "HTTPS_PROXY", "", False),
        ("http://provider.test", "HTTP_PROXY", "", False),
        ("http://localhost", "ALL_PROXY", "", False),
    ],
)
def test_proxy_of_the_environment_is_used_for_what_is_encrypted(
    client: FlaskClient,
    point: Point,
    tls: Tls,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    variable: str,
    exempt: str,
    is_proxied: bool,
) -> None:
    def refuse(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with raw_server(refuse) as proxy, socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv(variable, proxy.url)
        monkeypatch.setenv("NO_PROXY", exempt)
        port = closed.getsockname()[1]
        closed.close()
        point(f"{base}:{port}/v1", "openai")
        response = client.post(CHAT, json={"message": "Hi", "provider": "openai", "model": "x"})

        assert response.status_code == 503
        asked = [request.split(b":")[0] for request in proxy.requests]
        assert asked == ([b"CONNECT provider.test"] if is_proxied else [])


def test_chats_one_after_the_other_share_a_connection(
    client: FlaskClient, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_KEPT_PLAIN", (1, 60.0))
    used: list[Connection] = []
    whole = recording("v1_chat_nostream").body

    def script(connection: Connection) -> None:
        while True:
            is_chat = connection.path == COMPLETIONS
            body = whole if is_chat else b"{}"
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            used.extend([connection] * is_chat)
            if not connection.read_request():
                return

    with raw_server(script) as server:
        point(f"{server.url}/v1")
        for _ in range(3):
            assert client.post(CHAT, json={"message": "Hi", "model": "x"}).status_code == 200

    assert used == used[:1] * 3


@pytest.mark.parametrize(
    ("tail", "waits"),
    [(b"", False), (b": x\n\n", True), (b"data: junk\n\n", True)],
)
def test_nothing_follows_done(client: FlaskClient, point: Point, tail: bytes, waits: bool) -> None:
    hung_up = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.send_chunk(recording("v1_chat_stream").body)
        if waits:
            connection.send_chunk(tail)
            connection.wait_for_close()
        hung_up.set()

    with raw_server(script) as server:
        point(f"{server.url}/v1")

        got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))

        assert [name for name, _ in got].count("done") == 1
        assert got[-1][0] == "done"
        assert hung_up.wait(5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("drip", [b" ", b": keep\n\n"])
def test_drips_are_no_answer(client: FlaskClient, point: Point, stream: bool, drip: bytes) -> None:
    stop = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head("text/event-stream" if stream else "application/json")
        while not stop.wait(0.05):
            connection.send_chunk(drip)

    client.put("/api/settings", json={"timeouts": {"first_byte": 0.4, "idle": 0.4}})
    with raw_server(script) as server:
        point(f"{server.url}/v1")

        response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": stream})
        stop.set()

    assert response.status_code == 504


ODD_CHUNKS = [
    {"choices": ["x"]},
    {"choices": 5},
    {"choices": [{"delta": "x"}]},
    [1],
]


@pytest.mark.parametrize("chunk", ODD_CHUNKS)
@pytest.mark.parametrize("stream", [False, True])
def test_answer_of_odd_shape_is_an_invalid_response(
    client: FlaskClient, ollama: HTTPServer, chunk: object, stream: bool
) -> None:
    data = json.dumps(chunk)
    if stream:
        ollama.expect_request(COMPLETIONS).respond_with_data(
            f"data: {data}\n\n", content_type="text/event-stream"
        )
    else:
        ollama.expect_request(COMPLETIONS).respond_with_data(data, content_type="application/json")

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": stream})

    assert response.status_code == 500
    assert response.json["error_type"] == "invalid_upstream_response"  # type: ignore[index]


def test_odd_usage_and_finish_reason_are_not_passed_on(client: FlaskClient, ollama: HTTPServer) -> None:
    body = (
        'data: {"choices": [{"delta": {"content": "a b"}, "finish_reason": {"a": 1}}]}\n\n'
        'data: {"choices": [], "usage": {"completion_tokens": true, "prompt_tokens": NaN}}\n\n'
    )
    ollama.expect_request(COMPLETIONS).respond_with_data(body, content_type="text/event-stream")

    done = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True}))[-1][1]

    assert (done["finish_reason"], done["tokens"], done["usage"]["estimated"]) == ("stop", 2, True)


@pytest.mark.parametrize(
    ("answer", "last"),
    [(_answer("whole"), "done"), ({"error": {"message": "quota exceeded"}}, "error")],
)
def test_provider_that_does_not_stream_is_understood(
    client: FlaskClient, ollama: HTTPServer, answer: dict[str, Any], last: str
) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json(answer)

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True})

    if last == "done":
        assert events(response)[-1][1]["response"] == "whole"
    else:
        assert response.status_code == 500
        assert "quota exceeded" in response.json["error"]  # type: ignore[index]


def test_redirect_of_a_provider_is_not_followed(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_data(
        "", 307, headers={"Location": ollama.url_for("/elsewhere")}
    )

    response = client.post(CHAT, json={"message": "Hi", "model": "x"})

    assert response.json["error_type"] == "invalid_upstream_response"  # type: ignore[index]
    assert [request.path for request, _ in ollama.log] == [COMPLETIONS]


def test_wrong_base_url_is_not_called_a_missing_model(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for(""), "openai")
    httpserver.expect_request("/chat/completions").respond_with_json({"detail": "Not Found"}, status=404)
    httpserver.expect_request("/models").respond_with_json({"detail": "Not Found"}, status=404)

    response = client.post(CHAT, json={"message": "Hi", "provider": "openai"})

    assert response.json["error_type"] == "invalid_upstream_response"  # type: ignore[index]
    assert "base_url" in response.json["hint"]  # type: ignore[index]


@pytest.mark.parametrize("after", ["inf", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_odd_retry_after_is_left_out(client: FlaskClient, ollama: HTTPServer, after: str) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json({}, status=429, headers={"Retry-After": after})

    response = client.post(CHAT, json={"message": "Hi", "model": "x"})

    assert response.status_code == 429
    assert "Retry-After" not in response.headers


BAD = [
    ({}, "message"),
    ({"message": ""}, "message"),
    ({"message": " \n"}, "message"),
    ({"message": 5}, "message"),
    ({"message": None}, "message"),
    ({"message": "a", "nope": 1}, "nope"),
    ({"message": "a", "provider": 5}, "provider"),
    ({"message": "a", "provider": ""}, "provider"),
    ({"message": "a", "model": 5}, "model"),
    ({"message": "a", "model": "bad name!"}, "model"),
    ({"message": "a", "model": "../x"}, "model"),
    ({"message": "a", "provider": "openai", "model": "a\0b"}, "model"),
    ({"message": "a", "system_prompt": 5}, "system_prompt"),
    ({"message": "a", "temperature": "hot"}, "temperature"),
    ({"message": "a", "temperature": -1}, "temperature"),
    ({"message": "a", "top_p": 2}, "top_p"),
    ({"message": "a", "seed": 1.5}, "seed"),
    ({"message": "a", "stop": 5}, "stop"),
    ({"message": "a", "stop": ["a"] * 5}, "stop"),
    ({"message": "a", "stop": [""]}, "stop"),
    ({"message": "a", "max_tokens": 0}, "max_tokens"),
    ({"message": "a", "stream": "yes"}, "stream"),
    ({"message": "a", "stream": 1}, "stream"),
    ({"message": "a", "temperature": "1"}, "temperature"),
    ({"message": "a", "seed": 10**100}, "seed"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages"),
    ({"messages": [{"role": "user", "content": "a"}] * 1001}, "messages"),
    ({"messages": [{"role": "system", "content": "a"}], "system_prompt": "b"}, "system_prompt"),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_chat_of_bad_input_is_400_and_names_the_field(
    client: FlaskClient, body: dict[str, Any], field: str
) -> None:
    response = client.post(CHAT, json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert field in response.json["details"]
    assert field.split("_")[0] in response.json["error"].lower()


@pytest.mark.parametrize("stream", [False, True])
def test_chat_uses_the_fallback_and_says_so(
    client: FlaskClient, httpserver: HTTPServer, point: Point, stream: bool
) -> None:
    with raw_server(lambda _: None) as server:
        address = server.url
    point(f"{address}/v1")
    point(httpserver.url_for("/v1"), "openai")
    client.put("/api/settings", json={"fallback_provider": "openai"})
    replay(httpserver, COMPLETIONS, "v1_chat_stream" if stream else "v1_chat_nostream")

    response = client.post(CHAT, json={"message": "Hi", "model": "local", "stream": stream})

    answer = events(response)[-1][1] if stream else response.json
    assert answer is not None
    assert (answer["provider"], answer["model"]) == ("openai", "gpt-4o-mini")
    assert answer["fallback_used"] is True
    assert answer["first_error"]["error_type"] == "upstream_unavailable"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_whose_fallback_fails_too_reports_the_first_error(
    client: FlaskClient, point: Point, stream: bool
) -> None:
    with raw_server(lambda _: None) as server:
        address = server.url
    point(f"{address}/v1")
    point(f"{address}/v1", "openai")
    client.put("/api/settings", json={"fallback_provider": "openai"})

    response = client.post(CHAT, json={"message": "Hi", "stream": stream})

    assert response.status_code == 503
    assert "Ollama" in response.json["error"]  # type: ignore[index]


def test_chat_does_not_use_a_disabled_fallback(client: FlaskClient, point: Point) -> None:
    with raw_server(lambda _: None) as server:
        address = server.url
    point(f"{address}/v1")
    client.put("/api/settings", json={"fallback_provider": "openai"})

    assert client.post(CHAT, json={"message": "Hi"}).status_code == 503

"""What a chat may hold beyond words: images, tools, formats, thinking, Ollama's own options."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from werkzeug import Response

from tests.conftest import events, replay
from tests.wire import recording

CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"
NATIVE = "/api/chat"
Point = Callable[..., None]

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def _sent(server: HTTPServer, path: str) -> dict[str, Any]:
    requests = [request for request, _ in server.log if request.path == path]
    body: dict[str, Any] = json.loads(requests[-1].get_data())
    return body


def _models(*able: tuple[str, list[str]]) -> dict[str, Any]:
    return {
        "models": [
            {
                "name": name,
                "size": 1,
                "modified_at": "2026-11-22T00:00:00Z",
                "digest": "a" * 64,
                "capabilities": ["completion", *capabilities],
            }
            for name, capabilities in able
        ]
    }


def _answer(text: str = "Hello!", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text, **message}}]}


def _native(text: str = "Hi.", **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "done": True, "done_reason": "stop", **more}


# -- images and tools


def test_images_go_to_ollama_as_parts(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request("/api/tags").respond_with_json(_models(("seer:1b", ["vision"])))
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer("A cat."))

    response = client.post(CHAT, json={"message": "What is it?", "model": "seer:1b", "images": [PNG]})

    assert response.status_code == 200
    assert _sent(ollama, COMPLETIONS)["messages"][-1]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]


def test_images_go_natively_as_bare_base64(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request("/api/tags").respond_with_json(_models(("seer:1b", ["vision"])))
    ollama.expect_request(NATIVE).respond_with_json(_native())
    turn = {"role": "user", "content": "?", "images": [f"data:image/jpeg;base64,{PNG}"]}

    client.post(CHAT, json={"messages": [turn], "model": "seer:1b", "keep_alive": "5m"})

    sent = _sent(ollama, NATIVE)
    assert sent["messages"] == [{"role": "user", "content": "?", "images": [PNG]}]
    assert sent["keep_alive"] == "5m"


@pytest.mark.parametrize(
    ("more", "what"),
    [({"images": [PNG]}, "vision"), ({"tools": [TOOL]}, "tools"), ({"think": True}, "thinking")],
)
def test_capability_that_is_missing_is_400_and_names_models_that_have_it(
    client: FlaskClient, ollama: HTTPServer, more: dict[str, Any], what: str
) -> None:
    ollama.expect_request("/api/tags").respond_with_json(_models(("plain:1b", []), ("able:1b", [what])))

    response = client.post(CHAT, json={"message": "?", "model": "plain:1b", **more})

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "capability_missing"
    assert response.json["details"] == {"model": "plain:1b", "missing": [what], "available": ["able:1b"]}
    assert "able:1b" in response.json["hint"]


def test_capability_of_an_older_ollama_is_asked_of_show(client: FlaskClient, ollama: HTTPServer) -> None:
    models = _models(("plain:1b", []))
    del models["models"][0]["capabilities"]
    ollama.expect_request("/api/tags").respond_with_json(models)
    replay(ollama, "/api/show", "show_ok")

    response = client.post(CHAT, json={"message": "?", "model": "plain:1b", "tools": [TOOL]})

    assert response.json["error_type"] == "capability_missing"  # type: ignore[index]


def test_model_that_can_is_chosen_where_none_is_named(client: FlaskClient, ollama: HTTPServer) -> None:
    models = _models(("plain:1b", []), ("able:1b", ["tools"]))
    ollama.expect_request("/api/tags").respond_with_json(models)
    client.patch("/api/providers/ollama", json={"model": ""})
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer())

    answer = client.post(CHAT, json={"message": "?", "tools": [TOOL]}).json

    assert answer is not None
    assert answer["model"] == "able:1b"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_tool_calls_are_answered_as_objects(
    client: FlaskClient, ollama: HTTPServer, stream: bool, native: bool
) -> None:
    ollama.expect_request("/api/tags").respond_with_json(_models(("tooly:latest", ["tools"])))
    suffix = "_stream" if stream else ""
    replay(ollama, COMPLETIONS, f"v1_chat_tool_call{suffix}")
    replay(ollama, NATIVE, f"chat_native_tool_call{suffix}")
    options = {"options": {"num_ctx": 2048}} if native else {}

    response = client.post(
        CHAT, json={"message": "?", "model": "tooly", "tools": [TOOL], "stream": stream, **options}
    )

    got = events(response) if stream else []
    answer = got[-1][1] if stream else response.json
    assert answer is not None
    [call] = answer["tool_calls"]
    assert call["function"] == {"name": "get_time", "arguments": {"utc": "UTC"}}
    assert call["id"].startswith("call_")
    assert answer["finish_reason"] == "tool_calls"
    if stream:
        assert [data["tool_calls"] for name, data in got if name == "delta"] == [[call]]


def test_tool_calls_in_pieces_are_put_together(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    pieces = [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"x"'}}],
        [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "not json"}}],
        [{"index": 0, "function": {"arguments": ": 1}"}}],
    ]
    chunks = [{"choices": [{"delta": {"tool_calls": piece}}]} for piece in pieces]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    httpserver.expect_request(COMPLETIONS).respond_with_data(data, content_type="text/event-stream")

    got = events(client.post(CHAT, json={"message": "?", "provider": "openai", "stream": True}))

    assert [name for name, _ in got] == ["start", "delta", "done"]
    done = got[-1][1]
    assert [call["id"] for call in done["tool_calls"]] == ["a", "b"]
    assert [call["function"]["arguments"] for call in done["tool_calls"]] == [{"x": 1}, "not json"]
    assert "not a JSON object" in done["notice"]


def test_tool_results_go_back_in_each_ones_words(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer())
    ollama.expect_request(NATIVE).respond_with_json(_native())
    called = {"id": "c1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [called], "thinking": "hm"},
        {"role": "tool", "content": "12:00", "tool_call_id": "c1", "tool_name": "f"},
    ]

    client.post(CHAT, json={"messages": turns, "model": "x"})
    client.post(CHAT, json={"messages": turns, "model": "x", "think": False})

    openai = _sent(ollama, COMPLETIONS)["messages"]
    assert openai[1] == {
        "role": "assistant",
        "content": "",
        "reasoning": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        ],
    }
    assert openai[2] == {"role": "tool", "content": "12:00", "tool_call_id": "c1"}
    native = _sent(ollama, NATIVE)
    assert native["think"] is False
    assert native["messages"][1]["tool_calls"] == [
        {"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}
    ]
    assert native["messages"][2]["tool_name"] == "f"


# -- the form of the answer


@pytest.mark.parametrize(
    ("text", "wanted", "is_valid", "said"),
    [
        ('{"n": 1}', SCHEMA, True, ""),
        ('{"n": "x"}', SCHEMA, False, "$.n"),
        ("{}", SCHEMA, False, '"n" is a required property'),
        ("no json", SCHEMA, False, "not JSON"),
        ("[1]", "json", True, ""),
        ("{", "json", False, "not JSON"),
        ("NaN", "json", False, "not JSON"),
        ("1", {"$ref": "#/$defs/nope"}, None, "does not hold"),
        ("1" * 5000, "json", None, "is too large"),
        ("[" * 100_000, SCHEMA, None, "nested too deeply"),
    ],
)
def test_format_is_sent_and_the_answer_checked(
    client: FlaskClient, ollama: HTTPServer, text: str, wanted: Any, is_valid: bool, said: str
) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer(text))

    answer = client.post(CHAT, json={"message": "?", "model": "x", "format": wanted}).json

    assert answer is not None
    assert answer["response"] == text
    assert answer["format_valid"] is is_valid
    assert ("format_error" in answer) == (is_valid is False)
    assert said in answer.get("format_error", "") + answer.get("notice", "")
    sent = _sent(ollama, COMPLETIONS)["response_format"]
    assert sent["type"] == ("json_object" if wanted == "json" else "json_schema")
    assert wanted == "json" or sent["json_schema"]["schema"] == wanted


def test_format_goes_natively_as_it_is(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, NATIVE, "chat_native_format_schema")

    answer = client.post(CHAT, json={"message": "?", "model": "x", "format": SCHEMA, "think": False}).json

    assert answer is not None
    assert "format_valid" in answer
    assert _sent(ollama, NATIVE)["format"] == SCHEMA


# -- thinking


def _thought(text: str, thinking: str, reason: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "reasoning": thinking}
    return {"choices": [{"message": message, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("text", "reason", "exhausted"), [("", "length", True), ("", "stop", None), ("ok", "length", None)]
)
def test_thinking_that_leaves_no_token_for_an_answer_is_told(
    client: FlaskClient, ollama: HTTPServer, text: str, reason: str, exhausted: bool | None
) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json(_thought(text, "hm", reason))

    answer = client.post(CHAT, json={"message": "?", "model": "x"}).json

    assert answer is not None
    assert (answer["thinking"], answer["response"]) == ("hm", text)
    assert answer.get("thinking_exhausted") is exhausted
    assert ("think" in answer.get("notice", "")) is not text.startswith("ok")


@pytest.mark.parametrize(("think", "effort"), [(True, "medium"), (False, "none"), ("high", "high")])
def test_thinking_is_an_effort_for_other_providers(
    client: FlaskClient, httpserver: HTTPServer, point: Point, think: Any, effort: str
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    httpserver.expect_request(COMPLETIONS).respond_with_json(_answer())

    client.post(CHAT, json={"message": "?", "provider": "openai", "think": think})

    assert _sent(httpserver, COMPLETIONS)["reasoning_effort"] == effort


# -- how fast it was


TIMINGS: dict[str, Any] = {
    "prompt_ms": 900.0,
    "predicted_n": 2,
    "predicted_ms": 16.0,
    "predicted_per_second": 125.04,
}


@pytest.mark.parametrize(
    ("timings", "speed"),
    [
        (TIMINGS, 125.0),  # llama.cpp's
        (None, None),  # the time of a whole answer is also that of loading, and of reading the prompt
        ({**TIMINGS, "predicted_per_second": "fast"}, None),
        ({**TIMINGS, "predicted_per_second": 0}, None),
        ({**TIMINGS, "predicted_per_second": True}, None),
        ({**TIMINGS, "predicted_per_second": "1e999"}, None),
        ([], None),
    ],
)
def test_speed_of_a_whole_answer_is_the_providers(
    client: FlaskClient, ollama: HTTPServer, timings: Any, speed: float | None
) -> None:
    answer = json.loads(recording("v1_chat_nostream").body)
    data = json.dumps({**answer, "timings": timings}).replace('"1e999"', "1e999")  # a number for JSON
    ollama.expect_request(COMPLETIONS).respond_with_data(data, content_type="application/json")

    response = client.post(CHAT, json={"message": "Hi", "model": "x"})

    assert response.json is not None
    assert response.json.get("tokens_per_second") == speed


# -- Ollama's own


@pytest.mark.parametrize("stream", [False, True])
def test_options_go_to_the_native_chat(client: FlaskClient, ollama: HTTPServer, stream: bool) -> None:
    replay(ollama, NATIVE, "chat_native_stream" if stream else "chat_native_nostream")
    asked = {"options": {"num_ctx": 8192, "top_k": 5}, "keep_alive": -1, "temperature": 0.5, "max_tokens": 9}

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": stream, **asked})

    got = events(response) if stream else []
    answer = got[-1][1] if stream else response.json
    assert answer is not None
    assert answer["finish_reason"] in {"stop", "length"}
    assert answer["usage"]["estimated"] is False
    assert answer["tokens"] > 0
    assert answer["tokens_per_second"] > 0
    assert answer["load_time"] >= 0
    assert "notice" not in answer
    if stream:
        assert [name for name, _ in got][:2] == ["start", "delta"]
        assert "".join(data["content"] for name, data in got if name == "delta") == answer["response"]
    assert _sent(ollama, NATIVE) == {
        "model": "x",
        "messages": [{"role": "user", "content": "Hi"}],
        "options": {"temperature": 0.5, "num_predict": 9, "num_ctx": 8192, "top_k": 5},
        "keep_alive": -1,
        "stream": stream,
    }


def test_native_stream_of_a_killed_runner_ends_with_an_error(client: FlaskClient, ollama: HTTPServer) -> None:
    replay(ollama, NATIVE, "chat_native_runner_killed_midstream")

    got = events(client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True, "think": False}))

    assert got[-1][0] == "error"
    assert got[-1][1]["error_type"] == "upstream_error"
    assert [name for name, _ in got].count("delta") > 3


NATIVE_FAULTS = [
    ("chat_native_unknown", 404, "model_not_found"),
    ("chat_native_load_failure", 500, "upstream_error"),
    ("queue_busy_1", 503, "upstream_busy"),
    ("chat_native_think_unsupported", 400, "upstream_rejected"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "status", "error_type"), NATIVE_FAULTS)
def test_native_fault_is_reported(
    client: FlaskClient, ollama: HTTPServer, name: str, status: int, error_type: str, stream: bool
) -> None:
    replay(ollama, NATIVE, name)
    replay(ollama, "/api/tags", "tags_models")

    response = client.post(
        CHAT, json={"message": "Hi", "model": "gone:1b", "stream": stream, "keep_alive": "1m"}
    )

    assert (response.status_code, response.json["error_type"]) == (status, error_type)  # type: ignore[index]


@pytest.mark.parametrize(
    "lines", ['{"message": {"content": "a"}}\n', '{"message": 5, "done": true}\n', '{"done"', "[]\n", ""]
)
def test_native_stream_that_is_cut_or_odd_is_no_success(
    client: FlaskClient, ollama: HTTPServer, lines: str
) -> None:
    ollama.expect_request(NATIVE).respond_with_data(lines, content_type="application/x-ndjson")

    response = client.post(CHAT, json={"message": "Hi", "model": "x", "stream": True, "think": False})

    if response.status_code == 200:
        assert events(response)[-1][0] == "error"
    else:
        assert response.json["error_type"] in {"upstream_incomplete", "invalid_upstream_response"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("wanted", "loaded", "sent"),
    [(3000, None, 4096), (3000, 8192, 8192), (9000, 8192, 16384), (None, 8192, 8192), (100, 512, 512)],
)
def test_window_is_chosen_so_that_a_model_is_seldom_loaded_anew(
    client: FlaskClient, ollama: HTTPServer, wanted: int | None, loaded: int | None, sent: int
) -> None:
    running = {"name": "x:latest", "size": 1, "digest": "a" * 64, "context_length": loaded}
    ollama.expect_request("/api/ps").respond_with_json({"models": [running] if loaded else []})
    ollama.expect_request(NATIVE).respond_with_json(_native())
    options = {"num_ctx": wanted} if wanted else {"top_k": 1}

    client.post(CHAT, json={"message": "Hi", "model": "x", "options": options})

    assert _sent(ollama, NATIVE)["options"]["num_ctx"] == sent


def test_model_that_is_loaded_anew_is_told(client: FlaskClient, ollama: HTTPServer) -> None:
    windows = iter([4096, 16384])

    def ps(_: Any) -> Any:
        running = {"name": "x:latest", "size": 1, "digest": "a" * 64, "context_length": next(windows)}
        return Response(json.dumps({"models": [running]}), content_type="application/json")

    ollama.expect_request("/api/ps").respond_with_handler(ps)
    ollama.expect_request(NATIVE).respond_with_json(_native(load_duration=700_000_000))

    answer = client.post(CHAT, json={"message": "Hi", "model": "x", "options": {"num_ctx": 9000}}).json

    assert answer is not None
    assert answer["context"]["window"] == 16384
    assert "loaded anew" in answer["notice"]


def test_defaults_of_a_model_are_used_in_every_chat(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request(NATIVE).respond_with_json(_native())
    defaults = {"X:latest": {"num_ctx": 8192, "keep_alive": "30m", "think": False}}
    assert client.put("/api/settings", json={"model_defaults": defaults}).status_code == 200

    client.post(CHAT, json={"message": "Hi", "model": "x"})
    plain = _sent(ollama, NATIVE)
    client.post(CHAT, json={"message": "Hi", "model": "x", "keep_alive": 5, "options": {"top_k": 1}})
    own = _sent(ollama, NATIVE)

    assert (plain["options"], plain["keep_alive"], plain["think"]) == ({"num_ctx": 8192}, "30m", False)
    assert (own["options"], own["keep_alive"]) == ({"top_k": 1, "num_ctx": 8192}, 5)


@pytest.mark.parametrize("more", [{"options": {"num_ctx": 4096}}, {"keep_alive": "5m"}, {"truncate": False}])
def test_what_only_ollama_knows_is_refused_for_others(
    client: FlaskClient, point: Point, more: dict[str, Any]
) -> None:
    point("http://127.0.0.1:9/v1", "openai")

    response = client.post(CHAT, json={"message": "Hi", "provider": "openai", **more})

    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error_type"] == "not_supported"
    assert set(more) < set(response.json["details"])


# -- context, logprobs


def _ps(server: HTTPServer, window: int) -> None:
    running = {"name": "x:latest", "size": 1, "digest": "a" * 64, "context_length": window}
    server.expect_request("/api/ps").respond_with_json({"models": [running]})


@pytest.mark.parametrize(
    ("message", "seen", "truncated"),
    [
        pytest.param("hi " * 30, 40, False, id="fits"),
        pytest.param("hi " * 4000, 2050, True, id="fewer-tokens-than-words"),
        pytest.param("hi " * 5000, 4000, True, id="more-words-than-the-window"),
        pytest.param("hello " * 3000, 3900, None, id="nobody-knows"),
        pytest.param("-" * 800, 60, False, id="a-long-line"),
        pytest.param("x" * 40_000, 3000, None, id="one-very-long-word"),
    ],
)
def test_context_tells_what_did_not_fit(
    client: FlaskClient, ollama: HTTPServer, message: str, seen: int, truncated: bool | None
) -> None:
    _ps(ollama, 4096)
    usage = {"prompt_tokens": seen, "completion_tokens": 10, "total_tokens": seen + 10}
    ollama.expect_request(COMPLETIONS).respond_with_json({**_answer(), "usage": usage})

    answer = client.post(CHAT, json={"message": message, "model": "x"}).json

    assert answer is not None
    assert answer["context"] == {"used": seen + 10, "window": 4096, "truncated": truncated}
    assert ("num_ctx" in answer.get("notice", "")) is (truncated is True)


def test_notice_about_an_unknown_window_names_no_size_and_no_option_of_ollama(
    client: FlaskClient, httpserver: HTTPServer, point: Callable[..., None]
) -> None:
    point(httpserver.url_for("/v1"), "groq", model="llama")
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    httpserver.expect_request(COMPLETIONS).respond_with_json({**_answer(), "usage": usage})

    answer = client.post(CHAT, json={"message": "One two three", "provider": "groq"}).json

    assert answer is not None
    assert answer["context"]["truncated"] is True
    assert "the model's window" in answer["notice"]
    assert "num_ctx" not in answer["notice"]


def test_context_is_null_where_nothing_is_known(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer())

    answer = client.post(CHAT, json={"message": "Hi", "model": "x"}).json

    assert answer is not None
    assert answer["context"] == {"used": None, "window": None, "truncated": None}


@pytest.mark.parametrize("native", [False, True])
def test_logprobs_are_answered(client: FlaskClient, ollama: HTTPServer, native: bool) -> None:
    replay(ollama, COMPLETIONS, "v1_chat_logprobs")
    replay(ollama, NATIVE, "chat_native_logprobs")
    body = {"message": "Hi", "model": "x", "logprobs": True, "top_logprobs": 2}

    answer = client.post(CHAT, json={**body, **({"think": False} if native else {})}).json

    assert answer is not None
    assert [entry["token"] for entry in answer["logprobs"]] == ["A", "w"]
    assert len(answer["logprobs"][0]["top_logprobs"]) == 2
    assert _sent(ollama, NATIVE if native else COMPLETIONS)["top_logprobs"] == 2


def test_logprobs_that_are_not_told_are_noticed(client: FlaskClient, ollama: HTTPServer) -> None:
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer())

    answer = client.post(CHAT, json={"message": "Hi", "model": "x", "logprobs": True}).json

    assert answer is not None
    assert answer["logprobs"] == []
    assert "logprobs" in answer["notice"]


def nested_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


def _turn(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a", **more}]}


BAD = [
    ({"message": "a", "images": ["%%%"]}, "images"),
    ({"message": "a", "images": [base64.b64encode(b"hello").decode()]}, "images"),
    ({"message": "a", "images": ["https://example.com/cat.png"]}, "images"),
    ({"message": "a", "images": PNG}, "images"),
    ({"message": "a", "images": []}, "images"),
    ({"message": "a", "images": [PNG] * 21}, "images"),
    ({**_turn(), "images": [PNG]}, "images"),
    (_turn(images=["x"]), "messages"),
    (_turn(tool_calls=[{"function": {"name": "f"}}]), "messages"),
    (_turn(role="tool"), "messages"),
    (_turn(content=None), "messages"),
    (_turn(nope=1), "messages"),
    (_turn(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": "["}}]), "messages"),
    (_turn(role="assistant", tool_calls=[{}]), "messages"),
    ({"message": "a", "tools": [{}]}, "tools"),
    ({"message": "a", "tools": [{"function": {"name": "not a name"}}]}, "tools"),
    ({"message": "a", "tools": "f"}, "tools"),
    ({"message": "a", "format": "yaml"}, "format"),
    ({"message": "a", "format": {}}, "format"),
    ({"message": "a", "format": {"type": "banana"}}, "format"),
    ({"message": "a", "format": {"properties": 5}}, "format"),
    ({"message": "a", "format": {"$ref": "https://example.com/schema"}}, "format"),
    ({"message": "a", "format": {"pattern": "("}}, "format"),
    ({"message": "a", "format": {"enum": ["a" * 1000] * 101}}, "format"),
    ({"message": "a", "format": {"b" * 100_001: 1}}, "format"),
    ({"message": "a", "format": {"minimum": 10**4000, "enum": [10**4000] * 80}}, "format"),
    ({"message": "a", "format": {"type": [{"a": n} for n in range(10_000)]}}, "format"),
    ({"message": "a", "format": nested_schema(64)}, "format"),
    ({"message": "a", "think": "a bit"}, "think"),
    ({"message": "a", "think": 1}, "think"),
    ({"message": "a", "logprobs": 1}, "logprobs"),
    ({"message": "a", "top_logprobs": 3}, "top_logprobs"),
    ({"message": "a", "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"message": "a", "options": {"num_ctx": "big"}}, "options"),
    ({"message": "a", "options": {"num_ctx": 0}}, "options"),
    ({"message": "a", "options": {"numctx": 1}}, "options"),
    ({"message": "a", "options": {"temperature": True}}, "options"),
    ({"message": "a", "options": []}, "options"),
    ({"message": "a", "keep_alive": "300"}, "keep_alive"),
    ({"message": "a", "keep_alive": {}}, "keep_alive"),
    ({"message": "a", "truncate": "no"}, "truncate"),
    ({"message": "a", "fallback_provider": 5}, "fallback_provider"),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_chat_of_bad_input_is_400_and_names_the_field(
    client: FlaskClient, body: dict[str, Any], field: str
) -> None:
    response = client.post(CHAT, json=body)

    assert response.status_code == 400
    assert response.json is not None
    assert field in response.json["details"]


# -- windows that are not known yet


def _stub_ps(server: HTTPServer, *windows: int | None) -> None:
    """Let ``/api/ps`` tell these windows of `m:latest`, then the last one for ever; None: not loaded."""
    left = list(windows)

    def ps(_: Any) -> Response:
        window = left.pop(0) if len(left) > 1 else left[0]
        running = {"name": "m:latest", "size": 1, "digest": "a" * 64, "context_length": window}
        return Response(json.dumps({"models": [running] if window else []}), content_type="application/json")

    server.expect_request("/api/ps").respond_with_handler(ps)


def test_window_that_was_asked_for_stays_also_under_another_spelling(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    _stub_ps(ollama, None, 8192)
    ollama.expect_request(NATIVE).respond_with_json(_native())
    sent = []

    for model, options in (("m", {"num_ctx": 8192}), ("M:latest", {"num_ctx": 4096}), ("m", {"top_k": 1})):
        client.post(CHAT, json={"message": "Hi", "model": model, "options": options})
        sent.append(_sent(ollama, NATIVE)["options"]["num_ctx"])

    assert sent == [8192, 8192, 8192]


def test_window_of_a_model_that_was_just_loaded_is_told(client: FlaskClient, ollama: HTTPServer) -> None:
    _stub_ps(ollama, None, 2048)
    ollama.expect_request(NATIVE).respond_with_json(_native())

    answer = client.post(CHAT, json={"message": "Hi", "model": "m", "options": {"top_k": 1}}).json

    assert answer is not None
    assert answer["context"]["window"] == 2048


def test_model_that_cannot_is_passed_over_where_none_is_named(
    client: FlaskClient, ollama: HTTPServer
) -> None:
    ollama.expect_request("/api/tags").respond_with_json(_models(("plain:1b", []), ("able:1b", ["tools"])))
    ollama.expect_request(COMPLETIONS).respond_with_json(_answer())
    client.patch("/api/providers/ollama", json={"model": "plain:1b"})

    answer = client.post(CHAT, json={"message": "?", "tools": [TOOL]}).json

    assert answer is not None
    assert answer["model"] == "able:1b"
    assert "cannot use tools" in answer["notice"]


def test_tool_calls_without_ids_get_them_and_their_results_the_same(
    client: FlaskClient, httpserver: HTTPServer, point: Point
) -> None:
    point(httpserver.url_for("/v1"), "openai")
    httpserver.expect_request(COMPLETIONS).respond_with_json(_answer())
    call = {"function": {"name": "f", "arguments": {}}}
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [call, call]},
        {"role": "tool", "content": "1", "tool_name": "f"},
        {"role": "tool", "content": "2", "tool_name": "f"},
    ]

    client.post(CHAT, json={"messages": turns, "provider": "openai"})

    sent = _sent(httpserver, COMPLETIONS)["messages"]
    ids = [made["id"] for made in sent[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [message["tool_call_id"] for message in sent[2:]] == ids

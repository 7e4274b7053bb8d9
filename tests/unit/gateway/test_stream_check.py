"""What passes through of a stream, and whether it was whole."""

from __future__ import annotations

import json

import pytest

from app.services.gateway.stream_check import StreamCheck
from tests.wire import recording

DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
KEY = "sk-0123456789abcdef"


def run(data: bytes, size: int, choices: int = 1) -> tuple[bytes, StreamCheck]:
    """Feed *data* in reads of *size* bytes."""
    check = StreamCheck("Ollama", KEY, choices)
    out = b""
    for start in range(0, len(data), size):
        out += check.feed(data[start : start + size])
        if check.error or check.done:
            return out, check
    return out + check.end(), check


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize(
    "name",
    ["v1_chat_stream", "v1_chat_stream_include_usage", "v1_chat_tool_call_stream", "v1_completions_stream"],
)
def test_whole_stream_passes_unchanged(name: str, size: int) -> None:
    body = recording(name).body

    out, check = run(body, size)

    assert out == body
    assert check.done
    assert check.error is None


@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_usage_is_the_last_one_told(size: int) -> None:
    _, check = run(recording("v1_completions_stream").body, size)

    assert check.usage == {"prompt_tokens": 13, "completion_tokens": 6, "total_tokens": 19}


@pytest.mark.parametrize("choices", [0, -1, 1])
def test_half_an_answer_is_incomplete_whatever_number_was_asked_for(choices: int) -> None:
    _, check = run(DELTA, 100_000, choices)

    assert check.error is not None
    assert check.error.error_type == "upstream_incomplete"


@pytest.mark.parametrize("size", [1, 100_000])
def test_stream_of_a_runner_that_was_killed_is_incomplete(size: int) -> None:
    body = recording("v1_chat_runner_killed_midstream").body

    out, check = run(body, size)

    assert out == body
    assert check.error is not None
    assert check.error.error_type == "upstream_incomplete"


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    ("event", "said"),
    [
        (b'data: {"error":{"message":"out of memory","type":"api_error"}}\n\n', "out of memory"),
        (b'data: {"error": "bad key sk-0123456789abcdef"}\n\n', "bad key ***"),
        (b'event: error\ndata: {"error":{"message":"gone"}}\n\n', "gone"),
        (b'data: {"choices":[{"delta":{},"finish_reason":"error"}]}\n\n', "it did not say why"),
    ],
)
def test_error_event_is_taken_out_and_told(event: bytes, said: str, size: int) -> None:
    out, check = run(DELTA + event + DELTA + DONE, size)

    assert out.rstrip(b"\n") + b"\n\n" == DELTA
    assert check.error is not None
    assert said in check.error.message
    assert not check.done


@pytest.mark.parametrize(
    "text",
    ['"error": {"message": "x"}', '"finish_reason": "stop"', "data: [DONE]", '"usage": {}', "\u2028\x0c"],
)
def test_text_that_looks_like_the_protocol_is_only_text(text: str) -> None:
    delta = {"choices": [{"delta": {"content": text}, "finish_reason": None}], "error": None}
    body = b"data: " + json.dumps(delta, ensure_ascii=False).encode() + b"\n\n"

    out, check = run(body, 100_000)

    assert out == body
    assert check.error is not None
    assert check.error.error_type == "upstream_incomplete"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(DELTA + END + DONE + DELTA, DELTA + END + DONE, id="nothing-follows-done"),
        pytest.param(DELTA + END + b"data: [DONE]", DELTA + END + DONE, id="no-last-newline"),
        pytest.param(b"data:[DONE]\r\n\r\n", b"data:[DONE]\r\n\n", id="crlf"),
        pytest.param(DELTA + END, DELTA + END + b"\n\n" + DONE, id="only-done-is-missing"),
        pytest.param(DELTA + END.rstrip(), DELTA + END + b"\n\n" + DONE, id="newline-and-done-missing"),
        pytest.param(DELTA + END + b'data: {"ch', DELTA + END + b"\n\n" + DONE, id="junk-after-the-end"),
    ],
)
def test_end_of_a_stream(data: bytes, expected: bytes) -> None:
    out, check = run(data, 100_000)

    assert out == expected
    assert check.done
    assert check.error is None


@pytest.mark.parametrize(
    ("data", "choices"),
    [
        pytest.param(b"", 1, id="nothing"),
        pytest.param(DELTA, 1, id="no-finish-reason"),
        pytest.param(DELTA + END[:-30], 1, id="cut-in-the-last-event"),
        pytest.param(DELTA + END, 2, id="one-of-two-answers"),
        pytest.param(b": ping\n\n", 1, id="comments-alone"),
    ],
)
def test_cut_stream_is_an_error_and_half_an_event_is_kept_back(data: bytes, choices: int) -> None:
    out, check = run(data, 100_000, choices)

    assert b"[DONE]" not in out
    assert out == data[: len(out)]
    assert out == b"" or out.endswith(b"\n\n")
    assert check.error is not None
    assert check.error.error_type == "upstream_incomplete"


def test_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.gateway.stream_check.LINE_LIMIT", 1000)

    _, check = run(b"data: " + b"x" * 2000, 100)

    assert check.error is not None
    assert check.error.error_type == "invalid_upstream_response"


@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_empty_finish_reason_finishes_nothing(size: int) -> None:
    unfinished = END.replace(b'"stop"', b'""')

    out, check = run(DELTA + unfinished, size)

    assert b"[DONE]" not in out
    assert check.error is not None
    assert check.error.error_type == "upstream_incomplete"

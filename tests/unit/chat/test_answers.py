"""Answers as they are put together from an event stream."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import EmptyResponse, InvalidUpstreamResponse, UpstreamError, UpstreamIncomplete
from app.services.chat.context_window import measure
from app.services.chat.dialects.answers import OpenAIAnswer
from app.upstream.json import count
from tests.wire import recording


def _chunk(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


def _fed(*reads: bytes) -> OpenAIAnswer:
    answer = OpenAIAnswer("Ollama")
    for data in reads:
        list(answer.feed(data))
    return answer


@given(st.lists(st.integers(0, 1231), max_size=12))
def test_feed_gives_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    body = recording("v1_chat_stream_unicode").body
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]

    answer = _fed(*(body[a:b] for a, b in itertools.pairwise(bounds)))
    answer.end()

    whole = _fed(body)
    assert answer.text == whole.text
    assert "".join(answer.text) != ""
    assert answer.done


@given(st.text(min_size=1))
def test_feed_keeps_any_text(text: str) -> None:
    answer = _fed(_chunk(delta={"content": text}), _chunk(delta={}, finish_reason="stop"))
    answer.end()

    assert "".join(answer.text) == text


def test_feed_keeps_line_separators() -> None:
    text = "a\u2028b\u0085c"

    assert "".join(_fed(_chunk(delta={"content": text})).text) == text


def _halves(*halves: str) -> list[bytes]:
    return [b'data: {"choices":[{"delta":{"content":"%s"}}]}\n' % half.encode() for half in halves]


def test_feed_joins_the_halves_of_a_character() -> None:
    answer = _fed(*_halves("a\\ud83d", "\\ude00b\\ud83d", "\\ude01"), b"data: [DONE]\n")
    answer.end()

    assert answer.text == ["a", "\U0001f600b", "\U0001f601"]


@pytest.mark.parametrize(
    "halves", [["\\ud83d"], ["\\ude00"], ["a\\ud83d", "b"], ["\\ude00\\ud83d"], ["\\ud83d\\ud83d\\ude00"]]
)
def test_half_a_character_is_an_error(halves: list[str]) -> None:
    with pytest.raises(InvalidUpstreamResponse, match="half a character"):
        _fed(*_halves(*halves), b"data: [DONE]\n").end()


def test_feed_reads_usage_from_the_chunk_without_choices() -> None:
    answer = _fed(recording("v1_chat_stream_include_usage").body)
    answer.end()

    assert answer.usage == {"prompt_tokens": 15, "completion_tokens": 14, "total_tokens": 29}
    assert answer.finish_reason == "stop"


def test_feed_tells_an_answer_that_was_cut_at_its_limit() -> None:
    answer = _fed(recording("v1_chat_stream_finish_length").body)

    assert answer.finish_reason == "length"


def test_feed_passes_over_comments_and_null_contents() -> None:
    answer = _fed(
        b": keep-alive\n\nevent: x\nid: 1\n\n",
        _chunk(delta={"role": "assistant", "content": None}),
        _chunk(delta=None, finish_reason=None),
        b'data: {"choices": null, "usage": null}\r\n\r\n',
        _chunk(delta={"content": "a"}, finish_reason="stop"),
    )
    answer.end()

    assert answer.text == ["a"]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_feed_keeps_thoughts_apart(name: str) -> None:
    answer = OpenAIAnswer("Ollama")

    deltas = [*answer.feed(_chunk(delta={name: "hm"})), *answer.feed(_chunk(delta={"content": "a"}))]

    assert deltas == [{"thinking": "hm"}, {"content": "a"}]


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param([recording("v1_chat_runner_killed_midstream").body], id="runner-killed"),
        pytest.param([recording("v1_chat_client_disconnect").body[:2000]], id="cut-in-a-line"),
        pytest.param([], id="empty"),
        pytest.param([_chunk(delta={"content": "a"})], id="no-terminator"),
        pytest.param([_chunk(delta={"content": "a"}, finish_reason="stop")[:-4]], id="half-an-event"),
    ],
)
def test_end_without_a_terminator_is_incomplete(reads: list[bytes]) -> None:
    answer = _fed(*reads)

    with pytest.raises(UpstreamIncomplete):
        answer.end()


def test_end_accepts_a_finish_reason_without_done() -> None:
    answer = _fed(_chunk(delta={"content": "a"}, finish_reason="stop"))

    answer.end()

    assert not answer.done


def test_end_of_a_stream_without_a_message_is_empty() -> None:
    answer = _fed(b'data: {"choices": []}\n\ndata: [DONE]\n\n')

    with pytest.raises(EmptyResponse):
        answer.end()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'data: {"error": {"message": "out of memory", "code": 500}}\n', "out of memory"),
        (b'data: {"error": "out of memory"}\n', "out of memory"),
        (b'data: {"error": {"code": 1}}\n', "did not say why"),
        (b'data: {"error": {"message": "key sk-123 bad"}, "choices": [{}]}\n', "key *** bad"),
        (_chunk(delta={"content": ""}, finish_reason="error"), "in the middle"),
    ],
)
def test_feed_raises_an_error_in_the_stream(data: bytes, text: str) -> None:
    answer = OpenAIAnswer("Ollama", "sk-123")

    with pytest.raises(UpstreamError) as caught:
        list(answer.feed(data))

    assert text in caught.value.message


@pytest.mark.parametrize("data", [b"data: {\n", b"data: [1]\n", b"data: \xff\n"])
def test_feed_of_what_is_no_event_is_invalid(data: bytes) -> None:
    with pytest.raises(InvalidUpstreamResponse):
        list(OpenAIAnswer("Ollama").feed(data))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", InvalidUpstreamResponse),
        (b"{}", EmptyResponse),
        (b'{"choices": []}', EmptyResponse),
        (b'{"choices": null}', EmptyResponse),
        (b'{"choices": [{}]}', InvalidUpstreamResponse),
        (b'{"choices": [null]}', InvalidUpstreamResponse),
        (b'{"choices": [{"message": {"content": null}}]}', EmptyResponse),
        (b'{"error": {"message": "boom"}}', UpstreamError),
    ],
)
def test_load_of_a_broken_answer_raises(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        OpenAIAnswer("Ollama").load(body)


@pytest.mark.parametrize(
    ("content", "text"),
    [('"hi"', "hi"), ('""', ""), ('[{"type": "text", "text": "hi"}, {"type": "thinking"}]', "hi")],
)
def test_load_keeps_the_text(content: str, text: str) -> None:
    answer = OpenAIAnswer("Ollama")

    answer.load(b'{"choices": [{"message": {"content": %s}}]}' % content.encode())

    assert "".join(answer.text) == text
    assert answer.finish_reason == "stop"


def test_load_of_thoughts_alone_is_an_answer() -> None:
    answer = OpenAIAnswer("Ollama")

    answer.load(
        b'{"choices": [{"message": {"content": null, "reasoning": "hm"}, "finish_reason": "length"}]}'
    )

    assert answer.thoughts == ["hm"]
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("response", "usage", "expected"),
    [
        ("one two three", None, (None, 3, None, True)),
        ("", None, (None, 0, None, True)),
        ("x", {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, (5, 7, 12, False)),
        ("x", {"completion_tokens": 7}, (None, 7, 7, False)),
    ],
)
def test_measure_says_whether_it_guessed(
    response: str, usage: dict[str, int] | None, expected: object
) -> None:
    measured = measure(response, usage)

    keys = ("prompt_tokens", "completion_tokens", "total_tokens", "estimated")
    assert tuple(measured[key] for key in keys) == expected


@pytest.mark.parametrize("value", [10**20, 2**53 + 1, -1, True, "5", 5.0, None])
def test_what_can_be_no_number_of_tokens_is_none(value: object) -> None:
    assert count(value) is None


@pytest.mark.parametrize("value", [0, 7, 2**53])
def test_number_of_tokens_is_itself(value: int) -> None:
    assert count(value) == value

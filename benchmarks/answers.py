"""What an answer says, and when its tokens came; read after the measurement, not during it."""

from __future__ import annotations

import json
from bisect import bisect_right
from itertools import accumulate

from benchmarks.load import Answer


class AnswerError(Exception):
    """An answer is a failure, incomplete, or not the expected text."""


def read_answer(answer: Answer) -> str:
    """Return the text of an answer, streamed or not; of an answer that was given up, the text so far.

    :raises AnswerError: for a failure, and for a stream without its last event
    """
    head, _, body = b"".join(answer.parts).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise AnswerError(f"answered {(head + body)[:300]!r}" if head else "nothing was answered")
    if b"chunked" in head.lower():
        body = _join_chunks(body)
    if b"text/event-stream" in head:
        return _stream_text(body, answer.whole)
    parsed = json.loads(body)
    text: str = parsed["choices"][0]["message"]["content"] if "choices" in parsed else parsed["response"]
    return text


def _join_chunks(body: bytes) -> bytes:
    found: list[bytes] = []
    at = 0
    while (line_end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:line_end], 16)
        found.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
    return b"".join(found)


def _stream_text(body: bytes, whole: bool) -> str:
    """Return the text in OpenAI's events, or in this backend's."""
    found: list[str] = []
    ends = 0
    *lines, rest = body.split(b"\n")
    if whole and rest:
        raise AnswerError("the last event is cut")
    for line in lines:
        if line in {b"event: done", b"data: [DONE]"}:
            ends += 1
        elif line == b"event: error" or (whole and line.startswith(b'data: {"error"')):
            raise AnswerError("the stream ends with an error")
        elif line.startswith(b"data: {") and not ends:
            data = json.loads(line[6:])
            choices = data.get("choices", [{"delta": data}])
            found.extend(choice["delta"].get("content") or "" for choice in choices)
    if whole and ends != 1:
        raise AnswerError(f"the stream has {ends} ends")
    return "".join(found)


def token_times(answer: Answer, count: int) -> list[float]:
    """Return the seconds from the request to each of the *count* tokens, without those that did not come."""
    received = b"".join(answer.parts)
    ends = list(accumulate(map(len, answer.parts)))
    found: list[float] = []
    at = 0
    for number in range(count):
        token = b"t%d " % number
        start = received.find(token, at)
        if start >= 0:
            at = start + len(token)
            found.append(answer.times[bisect_right(ends, at - 1)])
    return found

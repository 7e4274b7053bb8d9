"""Check answers that are passed on: that a stream is complete, without parsing each event, and whole ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from app.errors import UpstreamError
from app.schemas.openai_v1 import OpenAIUsage
from app.upstream.failures import clean, cut_off, error_message, invalid_response, unfit
from app.upstream.json import has_half, parse
from app.upstream.limits import LINE_LIMIT, too_long

Event = Mapping[str, object]

_DONE = re.compile(rb"^data: ?\[DONE\][ \t\r]*\n", re.MULTILINE)
# JSON escapes the quotes inside a string, so these patterns match keys only.
_FINISHED = re.compile(rb'"finish_reason":\s*"[^"]')
_FAILED = re.compile(rb'"finish_reason":\s*"error"|"error":\s*["{]')
_BLANK_LINES = (b"\n\n", b"\n\r\n")  # the ends of events
_USAGE = b'"usage":'
_CONSTANTS = (b"NaN", b"Infinity")
_LARGE = 65536  # bytes; an event that has more is parsed, in case that no other program could


class StreamCheck:
    """Passes the events of a stream on, and tells at the end whether the stream was complete.

    :param name: the provider's name, for error messages
    :param secret: the provider's API key, which is removed from error messages
    :param choices: the number of answers that the request asks for
    """

    def __init__(self, name: str, secret: str = "", choices: int = 1) -> None:
        self.events = 0
        self.done = False
        self.error: UpstreamError | None = None
        self._name = name
        self._secret = secret
        self._unfinished = max(1, choices)
        self._rest = bytearray()
        self._usage_event = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, and return the complete events in them, up to the first error.

        An error sets :attr:`error`. An incomplete event is kept until its end comes.
        """
        end, news = 0, self._rest[-2:] + data
        self._rest += data
        if any(blank in news for blank in _BLANK_LINES):
            # Only after a blank line: else a large event would be searched again for each part of it.
            end = max(self._rest.rfind(blank) + len(blank) for blank in _BLANK_LINES if blank in self._rest)
        block = bytes(self._rest[:end])
        del self._rest[:end]
        if len(self._rest) > LINE_LIMIT:
            self.error = unfit(self._name, too_long())
        # A look for few bytes is much quicker than one for a pattern.
        if b"[DONE]" in block and (found := _DONE.search(block)):
            self.done = True
            block = block[: found.end()] + b"\n"
        if (b'"error"' in block and _FAILED.search(block)) or _has_large_line(block):
            block = self._until_failure(block)
        self.events += block.startswith(b"data:") + block.count(b"\ndata:")
        self._unfinished -= len(_FINISHED.findall(block))
        if (at := block.rfind(_USAGE)) >= 0:
            self._usage_event = block[block.rfind(b"\n", 0, at) + 1 : block.find(b"\n", at)]
        return block

    def end(self) -> bytes:
        """Return the last bytes to pass on, after the provider has closed the stream.

        If only the terminator is missing, it is added. If an answer is not finished, :attr:`error` is set.
        """
        rest, self._rest = bytes(self._rest), bytearray()
        block = b""
        if rest.strip() == b"data: [DONE]" or _event(rest) is not None:  # only the last newlines are missing
            block = self.feed(rest + b"\n\n")
        if self.done or self.error:
            return block
        if self._unfinished > 0:
            self.error = cut_off(self._name)
            return block
        self.done = True
        return block + b"\n\ndata: [DONE]\n\n"

    @property
    def usage(self) -> OpenAIUsage:
        """The usage in the last event that has one."""
        return usage_of(_event(self._usage_event))

    def _until_failure(self, block: bytes) -> bytes:
        """Return the part of *block* before its first error event, and set :attr:`error`."""
        start = position = 0
        for line in block.splitlines(keepends=True):
            if not line.strip():
                start = position
            is_large = len(line) > _LARGE
            event = _event(line) if is_large or _FAILED.search(line) else {}
            if event is None and is_large and line.startswith(b"data:"):
                self.done = False
                self.error = invalid_response(self._name, "an event is not JSON")
                return block[:start]
            event = event or {}
            if event.get("error") or _has_failed(event):
                self.done = False
                message = clean(error_message(event), self._secret) or "it did not say why"
                self.error = UpstreamError(
                    f"{self._name} failed while answering: {message}",
                    hint="Ask again, or use another model.",
                )
                return block[:start]
            position += len(line)
        return block


def _has_large_line(block: bytes) -> bool:
    return len(block) > _LARGE and max(map(len, block.split(b"\n"))) >= _LARGE


def _event(line: bytes) -> Event | None:
    """Return the JSON object in a ``data:`` line; None for any other line."""
    if not line.startswith(b"data:"):
        return None
    try:
        event = parse(line[5:])
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _has_failed(event: Event) -> bool:
    """Tell whether an answer ended with an error, in OpenRouter's format."""
    choices = event.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") == "error" for choice in choices
    )


def usage_of(answer: Event | None) -> OpenAIUsage:
    """Return the usage of an answer or event; an empty one if it has none."""
    usage = (answer or {}).get("usage")
    return cast("OpenAIUsage", usage) if isinstance(usage, dict) else {}


def fault_of(endpoint: str, data: bytes, answer: Mapping[str, object]) -> str:
    """Return what is wrong with an answer, as a part of a sentence about it; empty if nothing is.

    :param endpoint: ``chat/completions``, ``completions`` or ``embeddings``
    :param data: the bytes that the client would get
    :param answer: the value of *data*
    """
    if any(constant in data for constant in _CONSTANTS) and not _is_json(data):
        return "it holds NaN or an infinite number, which JSON does not have"
    if not endpoint.endswith("completions"):
        return ""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return "there is no answer in it"
    part = "message" if endpoint.startswith("chat") else "text"
    return "" if all(_is_choice(choice, part) for choice in choices) else "an answer in it has another form"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _is_choice(choice: object, part: str) -> bool:
    said = choice.get(part) if isinstance(choice, dict) else None
    if part == "text":
        return _is_text(said)
    if not isinstance(said, dict):
        return False
    content = said.get("content")  # a list of parts, from some models that think
    return content is None or isinstance(content, list) or _is_text(content)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not has_half(value)

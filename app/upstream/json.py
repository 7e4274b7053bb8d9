"""Parse the JSON of upstreams, and take objects and counts from it without trusting their types."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from app import large_json
from app.errors import UpstreamError
from app.upstream.failures import clean, error_message, invalid_response

Json = dict[str, Any]


MAX_DEPTH = 100
"""The most levels of a value: what takes it from here, calls itself for each level."""

_MAX_DIGITS = 300  # of an integer; a larger one is infinite to every program that computes with floats


_HALF = re.compile("[\ud800-\udfff]")


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _MAX_DIGITS else None


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_integer, parse_constant=lambda _: None)
_QUICK_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)
_SHORT = 1000  # characters: too few for levels or digits that harm anybody; most events have fewer
# Signs of texts, lists and objects. To read more of them, Python's parser in C keeps other threads waiting
# for long. Numbers do not count: the parser calls the functions above for each, and other threads go on.
_MANY_SIGNS = 50_000
_MOST_VALUES, _MOST_CONTAINERS = 5_000_000, 1_000_000  # of a value with so many signs


def parse(data: bytes | str) -> Any:
    """Return the value of *data*; NaN and infinite numbers, which JSON does not have, become None.

    A text of the value may hold lone surrogates, halves of a character: see :func:`has_half`.

    :raises ValueError: when *data* is not JSON in UTF-8, or nested more than :data:`MAX_DEPTH` levels deep
    """
    text = data if isinstance(data, str) else data.decode()
    is_short = len(text) < _SHORT
    try:
        value = _short(text) if is_short else _long(text)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not is_short and text.count("[") + text.count("{") > MAX_DEPTH:
        large_json.check_depth(value, MAX_DEPTH)
    return value


def _short(text: str) -> Any:
    """Return the value of *text*, mostly an event of a stream, which has no white space around its JSON."""
    try:
        value, end = _QUICK_DECODER.raw_decode(text)
    except ValueError:
        end = -1
    return value if end == len(text) else _QUICK_DECODER.decode(text)


def _long(text: str) -> Any:
    if sum(map(text.count, '"[{')) < _MANY_SIGNS:
        return _DECODER.decode(text)
    hooks = {"parse_float": _finite, "parse_int": _integer, "parse_constant": lambda _: None}
    return large_json.loads(text, values=_MOST_VALUES, containers=_MOST_CONTAINERS, **hooks)


class Characters:
    """Joins characters that come in two halves: a program that counts UTF-16 cuts streams between them."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the whole characters in the next piece of the text; keep a first half at its end.

        :raises ValueError: when a half has no other half
        """
        if not self._half and (text.isascii() or not _HALF.search(text)):
            return text
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16")

    def end(self) -> None:
        """Check that the text is whole.

        :raises ValueError: when a half is left
        """
        if self._half:
            raise ValueError("half a character")


def has_half(text: str) -> bool:
    """Tell whether *text* holds a lone surrogate, half of a character that is a pair in UTF-16."""
    return not text.isascii() and _HALF.search(text) is not None


MAX_COUNT = 2**53
"""The largest integer that every JSON parser and every database keeps exactly."""


def count(value: object) -> int | None:
    """Return *value* if it is an integer from 0 to :data:`MAX_COUNT`, else None."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def objects(value: object) -> list[Json]:
    """Return the objects in *value*; an empty list if *value* is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def parse_answer(data: bytes, name: str, secret: str) -> Json:
    """Return the JSON object in *data*, which is an answer or an event of a stream.

    :param name: the upstream's name, for messages
    :param secret: the upstream's API key, which messages must not show
    :raises UpstreamError: when *data* is no JSON object, or reports an error
    """
    try:
        parsed = parse(data)
    except ValueError as exc:
        raise invalid_response(name, "it is not JSON") from exc
    if not isinstance(parsed, dict):
        raise invalid_response(name, "it is not a JSON object")
    if parsed.get("error"):
        message = clean(error_message(parsed), secret)
        raise UpstreamError(f"{name} failed while answering: {message or 'it did not say why'}")
    return parsed

"""Parse the JSON of upstreams, and take objects and counts from it without trusting their types."""

from __future__ import annotations

import json
import math
from typing import Any

from app.errors import UpstreamError
from app.upstream.failures import clean, error_message, invalid_response

Json = dict[str, Any]


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)


def parse(data: bytes | str) -> Any:
    """Return the value of *data*; NaN and infinite numbers, which JSON does not have, become None.

    :raises ValueError: when *data* is not JSON in UTF-8
    :raises RecursionError: when *data* is nested too deeply
    """
    return _DECODER.decode(data if isinstance(data, str) else data.decode())


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
    except (ValueError, RecursionError) as exc:
        raise invalid_response(name, "it is not JSON") from exc
    if not isinstance(parsed, dict):
        raise invalid_response(name, "it is not a JSON object")
    if parsed.get("error"):
        message = clean(error_message(parsed), secret)
        raise UpstreamError(f"{name} failed while answering: {message or 'it did not say why'}")
    return parsed

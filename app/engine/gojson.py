"""JSON, times and durations as Ollama's Go code reads and writes them; ``tests/wire`` has recordings."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

Object = dict[str, Any]

FOREVER = 292 * 365 * 86_400.0  # seconds for a negative keep_alive: Go's longest time.Duration

_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HTML_PATTERN = re.compile("[<>&\u2028\u2029]")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|[+-]?0")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MAX_DEPTH = 250  # Go allows 10,000, which Python's own encoder and llama.cpp do not reach
_TOO_DEEP = "exceeded max depth"
_INT64 = 1 << 63
_MAX_DIGITS = 308  # more do not fit a float64
_HALF = re.compile("[\ud800-\udfff]")  # half of a character: Python joins the halves of a pair
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_GO_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "bool": (bool,),
    "float64": (int, float),
    "int": (int,),
    "object": (dict,),
    "array": (list,),
}


class BadBodyError(ValueError):
    """Go's decoder would refuse the body; the text is Go's message."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request: *kind* is its JSON type, *type* the Go type that an error names (else *kind*)."""

    kind: str
    type: str = ""


def dumps(value: object) -> bytes:
    """Encode *value* without spaces, and escape ``<``, ``>`` and ``&``, as encoding/json does."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _HTML_PATTERN.sub(lambda match: _HTML[match[0]], text).encode("utf-8", "replace")


def line(value: object) -> bytes:
    """Encode *value* as one line of NDJSON."""
    return dumps(value) + b"\n"


def loads(body: bytes) -> Any:
    """Decode the first JSON value of *body*, as Go's decoder does.

    :raises BadBodyError: with Go's message
    """
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        value = _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as exc:
        raise BadBodyError(_go_message(exc)) from exc
    except RecursionError as exc:
        raise BadBodyError(_TOO_DEEP) from exc
    if text.count("[") + text.count("{") > _MAX_DEPTH or _HALF_ESCAPED.search(text):
        return _checked(value, 1)
    return value


def _checked(value: Any, depth: int) -> Any:
    """Return *value* with U+FFFD for each half of a character, as Go's decoder does; check its depth."""
    if depth > _MAX_DEPTH:
        raise BadBodyError(_TOO_DEEP)
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_checked(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {_HALF.sub("\ufffd", key): _checked(entry, depth + 1) for key, entry in value.items()}
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _too_large(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _too_large(text)
    return value


def _too_large(text: str) -> BadBodyError:
    return BadBodyError(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")


def _reject_constant(name: str) -> None:
    raise BadBodyError(f"invalid character '{name[0]}' looking for beginning of value")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_int=_integer, parse_float=_float)


def _go_message(exc: json.JSONDecodeError) -> str:
    """Return Go's message for the error that Python found at ``exc.pos``."""
    if exc.pos >= len(exc.doc.rstrip()) or exc.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    where = {
        "Expecting value": "looking for beginning of value",
        "Expecting property name enclosed in double quotes": ("looking for beginning of object key string"),
        "Expecting ':' delimiter": "after object key",
        "Expecting ',' delimiter": "after object key:value pair",
        "Invalid control character at": "in string literal",
    }.get(exc.msg, "in string escape code")
    return f"invalid character '{exc.doc[exc.pos]}' {where}"


def decode(body: bytes, struct: str, fields: dict[str, Field]) -> Object:
    """Decode *body* as the Go *struct* and check its *fields*; null fields are left out.

    :raises BadBodyError: with Go's message
    """
    value = loads(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        package = "openai" if struct in {"ChatCompletionRequest", "CompletionRequest"} else "api"
        raise BadBodyError(f"json: cannot unmarshal {kind_of(value)} into Go value of type "
                           f"{package}.{struct}")  # fmt: skip
    found = {key: entry for key, entry in value.items() if entry is not None}
    check(found, struct, fields)
    return found


def check(value: Object, struct: str, fields: dict[str, Field]) -> None:
    """Check the *fields* of an object; null counts as absent.

    :param struct: the path of the Go struct, as Go names it in its error
    :raises BadBodyError: with Go's message
    """
    for key, field in fields.items():
        if (entry := value.get(key)) is not None and not _is_kind(entry, field.kind):
            raise BadBodyError(
                f"json: cannot unmarshal {kind_of(entry)} into Go struct field "
                f"{struct}.{key} of type {field.type or field.kind}"
            )


def kind_of(value: object) -> str:
    """Name the JSON type of *value* as Go does."""
    return _GO_KINDS.get(type(value), "object")


def _is_kind(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    if kind == "int" and isinstance(value, int):
        return -_INT64 <= value < _INT64
    return isinstance(value, _PYTHON_TYPES[kind])


def duration(value: object) -> float:
    """Return the seconds of a ``keep_alive``: a number or a Go duration such as ``5m``; negative is FOREVER.

    :raises BadBodyError: with the message of Go's time.ParseDuration
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadBodyError("json: cannot unmarshal keep_alive into a duration")
    seconds = _parse_duration(value) if isinstance(value, str) else float(value)
    return FOREVER if seconds < 0 else min(seconds, FOREVER)


def _parse_duration(text: str) -> float:
    if not _DURATION.fullmatch(text):
        wrong = "missing unit in" if re.fullmatch(r"[+-]?\d+\.?\d*", text) else "invalid"
        raise BadBodyError(f'time: {wrong} duration "{text}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    return -seconds if text.startswith("-") else seconds


def timestamp(epoch_ns: int) -> str:
    """Format nanoseconds since the epoch as RFC 3339 in UTC, without trailing zeros, as Go does."""
    seconds, nanos = divmod(epoch_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanos:09}".rstrip("0") if nanos else ""
    return f"{moment}{fraction}Z"


def now() -> str:
    """Return the present time as Ollama writes it."""
    return timestamp(time.time_ns())

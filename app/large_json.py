"""Parse large JSON without keeping other threads from work.

Python's parser is written in C, and holds the interpreter's lock to the end: 16 MB of small lists take
seconds. The parser here is its version in Python, which other threads interrupt. It is as fast for long
texts, and slower for many small values, so it is for large JSON only. It also limits what it makes: millions
of objects would take as long again whenever they are copied, written or freed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined]  # not in the types
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

SMALL = 250_000
"""Bytes of JSON that Python's own parser reads within some hundredths of a second."""
MAX_DEPTH = 128
"""The most levels of nested lists and objects."""
MAX_VALUES = 1_000_000
MAX_CONTAINERS = 100_000
"""The most lists and objects, unless a caller allows more."""

_MAX_DIGITS = 5_000  # of a number; Python itself makes no integer of so many
_NUMBER = "0123456789+-.eE"

_Scan = Callable[[str, int], Any]


class TooMuch(ValueError):
    """The JSON is valid so far, but larger than allowed; ``str()`` is a sentence for the user."""


def loads(
    text: str, *, values: int = MAX_VALUES, containers: int = MAX_CONTAINERS, **hooks: Callable[[str], Any]
) -> Any:
    """Return the value of *text*.

    :param values: the most values, with those inside of lists and objects
    :param containers: the most lists and objects
    :param hooks: ``parse_float``, ``parse_int`` and ``parse_constant`` of :class:`json.JSONDecoder`
    :raises ValueError: when *text* is not JSON
    :raises TooMuch: when it has too many values or levels
    """
    return _Decoder(values, containers, **hooks).decode(text)


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Check the levels of a value that Python's own parser has read.

    :raises TooMuch: when there are more than *most*
    """
    level = [value]
    for _ in range(most):
        lists = (item.values() if isinstance(item, dict) else item for item in level if _is_container(item))
        level = [item for items in lists for item in items if _is_container(item)]
        if not level:
            return
    raise _too_deep(most)


class _Decoder(json.JSONDecoder):
    def __init__(self, values: int, containers: int, **hooks: Any) -> None:
        super().__init__(**hooks)
        self._values, self._values_left = values, values
        self._containers, self._containers_left = containers, containers
        self._depth = 0
        self._scan: _Scan
        self.parse_object = self._object
        self.parse_array = self._array
        self.scan_once = py_make_scanner(self)

    def _object(self, start: Any, strict: bool, scan: _Scan, *hooks_and_memo: Any) -> Any:
        self._enter(scan)
        found = JSONObject(start, strict, self._next, *hooks_and_memo)
        self._depth -= 1
        return found

    def _array(self, start: Any, scan: _Scan) -> Any:
        self._enter(scan)
        found = JSONArray(start, self._next)
        self._depth -= 1
        return found

    def _enter(self, scan: _Scan) -> None:
        """Begin a list or an object."""
        self._scan = scan  # the same function each time
        self._depth += 1
        self._containers_left -= 1
        if self._depth > MAX_DEPTH:
            raise _too_deep(MAX_DEPTH)
        if self._containers_left < 0:
            raise TooMuch(f"The body has more than {self._containers:,} lists and objects.")

    def _next(self, text: str, index: int) -> Any:
        """Read a value inside of a list or an object."""
        self._values_left -= 1
        if self._values_left < 0:
            raise TooMuch(f"The body has more than {self._values:,} values.")
        # The parser's pattern would hold the lock as long as a number has digits.
        end = index + _MAX_DIGITS
        if len(text) > end and text[end] in _NUMBER and not text[index:end].strip(_NUMBER):
            raise TooMuch(f"The body has a number of more than {_MAX_DIGITS:,} digits.")
        return self._scan(text, index)


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _too_deep(most: int) -> TooMuch:
    return TooMuch(f"The body is nested more than {most} times.")

"""The parameters that a model brings, out of the text in which Ollama shows them."""

from __future__ import annotations

import ast
import json
from typing import Any

_LISTS = {"stop"}


def parse_parameters(text: str) -> dict[str, Any]:
    """Parse lines such as ``stop  "<|im_end|>"``; what is named twice, and ``stop``, becomes a list."""
    found: dict[str, list[Any]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key:
            found.setdefault(key, []).append(_value(value.strip()))
    return {key: values if key in _LISTS or len(values) > 1 else values[0] for key, values in found.items()}


def _value(text: str) -> Any:
    """Read a number, a truth value or a quoted text as Go's ``%#v`` writes it."""
    for parse in (json.loads, ast.literal_eval):  # Go's escapes are JSON's, or else Python's
        try:
            value = parse(text)
        except (ValueError, SyntaxError):
            continue
        return int(value) if isinstance(value, float) and value.is_integer() else value
    return text

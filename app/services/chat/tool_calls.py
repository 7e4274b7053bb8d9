"""Make the tool calls of an answer for the client."""

from __future__ import annotations

import json

from app.schemas.messages import CalledFunction, ToolCall
from app.upstream.json import has_half, parse


def tool_call(id: object, name: object, arguments: object) -> ToolCall:
    """Return a tool call for the client; arguments that are not the JSON of an object stay text."""
    function: CalledFunction = {"name": _text(name), "arguments": _arguments(arguments)}
    return {"id": _text(id), "type": "function", "function": function}


def _arguments(given: object) -> dict[str, object] | str:
    if isinstance(given, str):
        try:
            parsed = parse(given or "{}")
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            return _text(given)
    else:
        parsed = given if isinstance(given, dict) else {}
    is_whole = not has_half(json.dumps(parsed, ensure_ascii=False))
    return parsed if is_whole else json.dumps(parsed)


def _text(value: object) -> str:
    """Return *value* if it is a text, without halves of characters; else an empty one."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""

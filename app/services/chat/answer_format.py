"""Check that an answer has the format that the request asked for."""

from __future__ import annotations

import json
import re
from typing import Any, TypedDict

Schema = dict[str, Any]


class Verdict(TypedDict, total=False):
    """The result of the check; ``format_error`` is there when ``format_valid`` is false."""

    format_valid: bool
    format_error: str


def check_format(wanted: str | Schema, response: str) -> Verdict:
    """Check the text *response*.

    :param wanted: ``json`` or a JSON schema
    """
    try:
        value = json.loads(response)
    except (ValueError, RecursionError):
        return _invalid("The answer is not JSON.")
    if isinstance(wanted, str):
        return {"format_valid": True}
    return _follow(wanted, value)


def _follow(schema: Schema, value: Any) -> Verdict:
    # Imported here: only chats with a schema need these modules.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        # An empty registry: the default one would fetch the URLs that a schema refers to.
        fault = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    except (Unresolvable, RecursionError, re.error):
        return _invalid(
            "The schema has a $ref to a part that it does not hold, a $ref to itself without end, or an "
            "invalid pattern."
        )
    if fault is None:
        return {"format_valid": True}
    return _invalid(f"{fault.json_path}: {fault.message[:500]}")


def _invalid(why: str) -> Verdict:
    return {"format_valid": False, "format_error": why}

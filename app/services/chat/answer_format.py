"""Whether an answer follows the format that was asked for."""

from __future__ import annotations

import json
import re
from typing import Any, TypedDict

Schema = dict[str, Any]


class Verdict(TypedDict, total=False):
    """Whether an answer follows its format, and where it does not."""

    format_valid: bool
    format_error: str


def check_format(wanted: str | Schema, response: str) -> Verdict:
    """Return ``format_valid``, and ``format_error`` where it is false.

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
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        # A registry of its own: nothing is fetched, whatever the schema refers to.
        fault = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    except (Unresolvable, RecursionError, re.error):
        return _invalid("The schema refers to something that it does not hold, or to itself without end.")
    if fault is None:
        return {"format_valid": True}
    return _invalid(f"{fault.json_path}: {fault.message[:500]}")


def _invalid(why: str) -> Verdict:
    return {"format_valid": False, "format_error": why}

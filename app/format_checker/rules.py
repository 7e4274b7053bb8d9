"""What a valid schema and a valid answer are. They can take any time: only a checker asks."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

Format = str | dict[str, Any]
"""``json``, or a JSON schema."""

_DATA = ("const", "enum", "default", "examples")  # keywords whose values are no schemas
_LONGEST = 500  # characters of a message, and of the path in front of it


class Verdict(NamedTuple):
    """The result of a check.

    :param is_valid: None when the check was not possible
    :param reason: a sentence: what is wrong, or why the check was not possible
    """

    is_valid: bool | None
    reason: str = ""


def schema_verdict(schema: dict[str, Any]) -> Verdict:
    """Tell whether *schema* is a JSON schema (draft 2020-12) that holds all that it refers to."""
    from jsonschema_rs import Draft202012Validator

    rules = Draft202012Validator(
        {"$ref": "https://json-schema.org/draft/2020-12/schema"}, validate_formats=True
    )
    fault = next(iter(rules.iter_errors(schema)), None)
    if fault is not None:
        return Verdict(False, _sentence(fault.instance_path, fault.message))
    if elsewhere := _reference_elsewhere(schema):
        return Verdict(False, f"'{elsewhere[:100]}' points out of the schema, and nothing is fetched.")
    return Verdict(True)


def answer_verdict(wanted: Format, text: str) -> Verdict:
    """Tell whether the answer *text* is JSON, and follows *wanted* if that is a schema."""
    try:
        # A schema cannot be checked with a number that no float can hold; JSON may have such a number.
        read_float = float if isinstance(wanted, str) else _finite
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=read_float)
    except json.JSONDecodeError:
        return Verdict(False, "The answer is not JSON.")
    except ValueError:  # also of int()
        return Verdict(None, "A number in the answer is too large.")
    except RecursionError:
        return Verdict(None, "The answer is nested too deeply.")
    return Verdict(True) if isinstance(wanted, str) else _follow(wanted, value)


def _follow(schema: dict[str, Any], value: Any) -> Verdict:
    from jsonschema_rs import Draft202012Validator

    try:
        # The library would fetch the URLs that a schema refers to.
        validator = Draft202012Validator(schema, retriever=_refuse_url)
    except ValueError:
        return Verdict(None, "The schema refers to a part that it does not hold, or cannot be used.")
    for fault in validator.iter_errors(value):
        if _is_unknown(fault):
            return Verdict(None, "A pattern of the schema takes too many steps.")
        return Verdict(False, _sentence(fault.instance_path, fault.message))
    return Verdict(True)


def _is_unknown(fault: ValidationError) -> bool:
    """Tell whether *fault*, or one in a branch of its ``anyOf``, says that a pattern takes too many steps."""
    from jsonschema_rs import ValidationErrorKind

    unknown = ValidationErrorKind.BacktrackLimitExceeded, ValidationErrorKind.RegexEngineFailure
    branches = getattr(fault.kind, "context", ())
    return isinstance(fault.kind, unknown) or any(
        _is_unknown(inner) for branch in branches for inner in branch
    )


def _sentence(path: list[str | int], message: str) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"${place[:_LONGEST]}: {message[:_LONGEST]}"


def _refuse_constant(constant: str) -> None:
    """Refuse NaN and Infinity, which Python's parser accepts."""
    raise json.JSONDecodeError("JSON has no such number", constant, 0)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _refuse_url(url: str) -> Any:
    raise LookupError(url)


def _reference_elsewhere(schema: dict[str, Any]) -> str:
    """Return a reference that leads out of *schema*; empty if there is none."""
    own = schema.get("$id")
    home = own if isinstance(own, str) and own else "#"
    level: list[Any] = [schema]
    while level:
        for item in level:
            for name in ("$ref", "$dynamicRef"):
                target = item.get(name) if isinstance(item, dict) else None
                if isinstance(target, str) and not target.startswith(("#", home)):
                    return target
        inner = (_schemas_in(item) if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
    return ""


def _schemas_in(item: dict[str, Any]) -> list[Any]:
    return [value for name, value in item.items() if name not in _DATA]

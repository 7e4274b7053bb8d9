"""What the checker says about schemas and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.format_checker.rules import Format, answer_verdict, schema_verdict

NUMBER: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

SLOW = r"^(?:(a|aa)+)\1!!$"  # needs more steps than the engine allows


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (NUMBER, '{"n": 1}'),
        (NUMBER, ' {"n": 1, "m": [null]} \n'),
        ("json", "[1]"),
        ("json", "1e400"),  # JSON sets no limit to numbers
        ({"$ref": "#/$defs/n", "$defs": {"n": NUMBER}}, '{"n": 1}'),
        ({"$id": "https://example.com/a", "$ref": "#/$defs/n", "$defs": {"n": NUMBER}}, '{"n": 1}'),
        ({"pattern": r"^\p{L}+$"}, '"é"'),  # JavaScript's patterns, not Python's
        ({"pattern": "^(?=a)"}, '"ab"'),
        ({"const": {"$ref": "https://example.com/"}}, '{"$ref": "https://example.com/"}'),
        ({"$ref": "#"}, "1"),  # demands nothing
    ],
)
def test_answer_follows_its_format(wanted: Format, text: str) -> None:
    assert answer_verdict(wanted, text) == (True, "")


@pytest.mark.parametrize(
    ("wanted", "text", "reason"),
    [
        (NUMBER, '{"n": "x"}', '$.n: "x" is not of type "integer"'),
        (NUMBER, "{}", '$: "n" is a required property'),
        ({"items": {"type": "string"}}, '["a", 1]', '$[1]: 1 is not of type "string"'),
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 60 + "!"), 'does not match "^(a+)+$"'),
        ({"uniqueItems": True}, "[1, 1.0]", "non-unique"),
        *[
            (wanted, text, "The answer is not JSON.")
            for wanted in ("json", NUMBER)
            for text in ("", "{", "no")
        ],
        *[("json", text, "The answer is not JSON.") for text in ("NaN", "[-Infinity]", "{} {}", "'a'")],
    ],
)
def test_answer_breaks_its_format(wanted: Format, text: str, reason: str) -> None:
    verdict = answer_verdict(wanted, text)

    assert verdict.is_valid is False
    assert reason in verdict.reason


def test_reason_is_short() -> None:
    verdict = answer_verdict({"additionalProperties": False}, json.dumps({"a" * 10_000: 1}))

    assert verdict.is_valid is False
    assert len(verdict.reason) < 1100


@pytest.mark.parametrize(
    ("wanted", "text", "reason"),
    [
        ("json", nested(100_000), "nested"),
        ("json", "1" * 5000, "too large"),
        ({"minimum": 0}, "-1e999", "too large"),
        ({"type": "null"}, "1e999", "too large"),
        ({"$ref": "#/$defs/nope"}, "1", "does not hold"),
        ({"$dynamicRef": "#nope"}, "1", "does not hold"),
        ({"$ref": "https://example.com/schema"}, "1", "does not hold"),
        ({"$ref": "file:///etc/passwd"}, "1", "does not hold"),
        ({"x": {"pattern": "("}, "$ref": "#/x"}, '"a"', "cannot be used"),
        ({"type": "banana"}, "1", "cannot be used"),
        ({"pattern": SLOW}, json.dumps("a" * 60 + "!"), "too many steps"),
        ({"not": {"pattern": SLOW}}, json.dumps("a" * 60 + "!"), "too many steps"),
        ({"anyOf": [{"oneOf": [{"pattern": SLOW}]}]}, json.dumps("a" * 60 + "!"), "too many steps"),
    ],
)
def test_answer_that_cannot_be_checked_is_neither_valid_nor_invalid(
    wanted: Format, text: str, reason: str
) -> None:
    verdict = answer_verdict(wanted, text)

    assert verdict.is_valid is None
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "schema",
    [
        NUMBER,
        {"$ref": "#/$defs/nope"},
        {"$schema": "https://example.com/other", "type": "string"},
        {"properties": {"$ref": {"type": "string"}}},
        {"x-own": 1},
    ],
)
def test_schema_is_accepted(schema: dict[str, Any]) -> None:
    assert schema_verdict(schema) == (True, "")


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"$ref": "a"}},
        {"enum": [{"$ref": "http://x/"}]},
        {"examples": [{"$ref": "http://a/"}], "default": {"$dynamicRef": "z"}},
        {"$id": "http://x/y", "$ref": "http://x/y#/$defs/a", "$defs": {"a": {}}},
    ],
)
def test_data_and_the_own_name_are_no_references_elsewhere(schema: dict[str, Any]) -> None:
    assert schema_verdict(schema) == (True, "")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "banana"}, "$.type"),
        ({"properties": 5}, "$.properties"),
        ({"properties": {"a": {"pattern": "("}}}, "$.properties.a.pattern"),
        ({"patternProperties": {"(": {}}}, "$.patternProperties"),
        ({"required": ["a", "a"]}, "$.required"),
        ({"$ref": 5}, "$.$ref"),
        ({"$ref": "https://example.com/schema"}, "points out of the schema"),
        ({"properties": {"a": {"allOf": [{"$dynamicRef": "b.json"}]}}}, "'b.json' points out of the schema"),
    ],
)
def test_schema_is_refused(schema: dict[str, Any], reason: str) -> None:
    verdict = schema_verdict(schema)

    assert verdict.is_valid is False
    assert reason in verdict.reason

"""Large JSON is read as Python's own parser reads it, up to the limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.large_json import MAX_CONTAINERS, MAX_DEPTH, MAX_VALUES, TooMuch, check_depth, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@given(VALUES)
def test_value_is_the_same(value: Any) -> None:
    assert loads(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["", "[", "[1,]", "{1: 2}", '{"a"}', "nope", '"\n"', "[] []", "1" * 5000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them
        loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" + "1," * MAX_VALUES + "1]", "values"),
        ("[" + "[]," * MAX_CONTAINERS + "1]", "lists and objects"),
        ("[" + "{}," * MAX_CONTAINERS + "1]", "lists and objects"),
        (nested(MAX_DEPTH + 1), "nested"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested"),
        ("[" * 100_000, "nested"),
    ],
)
def test_too_much_is_refused(text: str, said: str) -> None:
    with pytest.raises(TooMuch, match=said):
        loads(text)


def test_limits_can_be_reached() -> None:
    assert len(loads("[" + "1," * (MAX_VALUES - 1) + "1]")) == MAX_VALUES
    assert loads(nested(MAX_DEPTH)) == json.loads(nested(MAX_DEPTH))
    check_depth(json.loads(nested(MAX_DEPTH)))
    with pytest.raises(TooMuch):
        check_depth(json.loads(nested(MAX_DEPTH + 1)))


def test_hooks_are_those_of_the_standard_parser() -> None:
    hooks = {"parse_float": str, "parse_constant": str}

    assert loads('[1.50, {"a": NaN}]', **hooks) == ["1.50", {"a": "NaN"}]


@pytest.mark.parametrize("number", ["9" * 5001, "-" + "9" * 6000, "1." + "0" * 6000, "1e" + "0" * 6000])
@pytest.mark.parametrize("text", ["[%s]", '{"a": %s}', "[%s"])
def test_number_without_end_is_refused(text: str, number: str) -> None:
    with pytest.raises(TooMuch, match="more than 5,000 digits"):
        loads(text % number)


def test_long_numbers_are_read() -> None:
    assert loads(f"[{'9' * 4000}, 1.{'0' * 4000}]") == [int("9" * 4000), 1.0]
    assert loads(f"[1,{'2,' * 5000}3]") == [1, *[2] * 5000, 3]

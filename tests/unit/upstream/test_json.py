"""JSON of upstreams that is large: it is read like small JSON, by a parser that other threads interrupt."""

from __future__ import annotations

import json

import pytest

from app.upstream.json import parse

MANY = 50_000


@pytest.mark.parametrize(
    "value",
    [
        [[], {}, "text", -1, 1.5, None, True] * MANY,
        {f"key {number}": number for number in range(MANY)},
        ['"[{ \\ \u00e9 \U0001f600'] * MANY,
    ],
    ids=["lists", "keys", "texts"],
)
def test_large_value_is_read_as_a_small_one(value: object) -> None:
    assert parse(json.dumps(value)) == value


def test_numbers_of_a_large_value_are_finite() -> None:
    text = "[" + "[]," * MANY + f"1e999, NaN, {'9' * 400}]"

    assert parse(text)[MANY:] == [None, None, None]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" + "[]," * MANY + "1]", "lists and objects"),
        ("[" + '"",' * MANY, "Expecting value"),
        ('["",' * MANY, "nested"),
    ],
)
def test_value_without_end_or_with_too_much_is_invalid(
    text: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.upstream.json._MOST_CONTAINERS", MANY)

    with pytest.raises(ValueError, match=fault):
        parse(text)

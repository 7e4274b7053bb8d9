"""The fields that several resources share."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import ValidationError, validate

from app.schemas.creations import CreateSchema
from app.schemas.fields import TextsField, WordBool
from app.schemas.options import OptionsSchema

GOOD_OPTIONS = [
    {"num_ctx": 1, "num_predict": -2, "num_keep": -1, "num_gpu": -1, "num_thread": 0, "repeat_last_n": -1},
    {"seed": 2**63 - 1, "num_ctx": 2**40, "top_k": 0},
    {"seed": -(2**63), "temperature": 1000, "repeat_penalty": -1, "presence_penalty": 1e30},
    {"stop": ["a", "b"], "use_mmap": False},
]
BAD_OPTIONS = [
    {"num_ctx": 0}, {"num_predict": -3}, {"num_ctx": 2**63}, {"seed": -(2**63) - 1}, {"temperature": -0.1},
    {"temperature": 1e39}, {"repeat_penalty": float("nan")}, {"top_p": 1.1}, {"stop": [""]}, {"stop": 1},
    {"mirostat": 1}, {"num_ctx": "1"}, {"num_ctx": 1.5}, {"use_mmap": 1},
]  # fmt: skip


@pytest.mark.parametrize("options", GOOD_OPTIONS)
def test_options_are_those_of_a_chat_and_of_a_new_model(options: dict[str, Any]) -> None:
    assert OptionsSchema().load(options) == options
    assert CreateSchema().load({"model": "m", "parameters": options})["parameters"] == options


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_option_that_ollama_would_not_take_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OptionsSchema().load(options)


def test_single_text_is_a_list_of_one() -> None:
    field = TextsField(count=validate.Length(1, 2, error="One or two."))

    assert field.deserialize("a") == ["a"]
    assert field.deserialize(["a", "b"]) == ["a", "b"]
    for value in ([], ["a", "b", "c"], "", [""], [1], None, {}):
        with pytest.raises(ValidationError):
            field.deserialize(value)


def test_words_of_a_query_are_true_and_false() -> None:
    field = WordBool()

    assert [field.deserialize(value) for value in (True, "true", False, "false")] == [
        True,
        True,
        False,
        False,
    ]
    for value in ("yes", "True", "2", None):
        with pytest.raises(ValidationError):
            field.deserialize(value)

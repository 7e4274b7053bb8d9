"""Invalid bodies: the work for one does not grow with the faults in it."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import EXCLUDE, INCLUDE, Schema, ValidationError, fields, validate

from app.schemas.chat import ChatRequestSchema, CompareRequestSchema
from app.schemas.conversations import ImportSchema
from app.schemas.fields import MOST_FAULTS, Items, RequestSchema, Table
from app.schemas.openai_v1 import OpenAIChatSchema
from app.schemas.settings import SettingsSchema
from app.schemas.updates import UpdateRequestSchema

MANY = 2000  # items, far more than the faults that an answer names


class Counted(fields.Int):
    """A whole number that counts how often it was looked at."""

    looks = 0

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        Counted.looks += 1
        number: int = super()._deserialize(value, *args, **kwargs)
        return number


class InnerSchema(RequestSchema):
    """An item."""

    numbers = Items(Counted(strict=True))


class OuterSchema(RequestSchema):
    """A body."""

    numbers = Items(Counted(strict=True), validate=validate.Length(1, MANY))
    inner = Items(fields.Nested(InnerSchema))
    table = Table(keys=fields.Str(), values=Counted(strict=True), validate=validate.Length(max=3))
    free = Table(values=Counted(strict=True))


@pytest.fixture(autouse=True)
def _no_looks() -> None:
    Counted.looks = 0


def faults_of(schema: Schema, body: Any, **kwargs: Any) -> dict[str, Any]:
    with pytest.raises(ValidationError) as caught:
        schema.load(body, **kwargs)
    return caught.value.messages_dict


def test_list_that_is_too_long_is_refused_before_its_items() -> None:
    faults = faults_of(OuterSchema(), {"numbers": ["x"] * (MANY + 1)})

    assert faults == {"numbers": [f"Length must be between 1 and {MANY}."]}
    assert Counted.looks == 0


def test_object_that_is_too_long_is_refused_before_its_values() -> None:
    assert faults_of(OuterSchema(), {"table": dict.fromkeys("abcd", "x")}) == {
        "table": ["Longer than maximum length 3."]
    }
    assert Counted.looks == 0


def test_list_stops_when_it_has_as_many_faults_as_an_answer_names() -> None:
    faults = faults_of(OuterSchema(), {"numbers": [1, *["x"] * (MANY - 1)]})

    assert faults == {"numbers": {at: ["Not a valid integer."] for at in range(1, MOST_FAULTS + 1)}}
    assert Counted.looks == 1 + MOST_FAULTS


def test_faults_inside_items_count_too() -> None:
    faults_of(OuterSchema(), {"inner": [{"numbers": ["x"] * 15}] * MANY})

    assert Counted.looks == 30


def test_object_stops_when_it_has_as_many_faults_as_an_answer_names() -> None:
    faults = faults_of(OuterSchema(), {"free": dict.fromkeys(range(MANY), "x")})

    assert count(faults) == MOST_FAULTS
    assert faults["free"][0] == {"value": ["Not a valid integer."]}
    assert Counted.looks == MOST_FAULTS


def test_valid_lists_and_objects_are_loaded_whole() -> None:
    body = {"numbers": [1] * MANY, "inner": [{"numbers": [2]}] * 3, "table": {"a": 1}}

    assert OuterSchema().load(body) == body
    assert faults_of(OuterSchema(), {"numbers": 5, "inner": {}, "table": []}) == {
        "numbers": ["Not a valid list."],
        "inner": ["Not a valid list."],
        "table": ["Not a valid mapping type."],
    }


def test_object_has_a_fault_for_its_first_unknown_keys_only() -> None:
    unknown = {f"k{at}": 1 for at in range(MANY)}

    faults = faults_of(OuterSchema(), {**unknown, "numbers": "x"})
    inner = faults_of(OuterSchema(), {"inner": [unknown]})

    first = {f"k{at}": ["Unknown field."] for at in range(MOST_FAULTS)}
    assert faults == {**first, "numbers": ["Not a valid list."]}
    assert inner == {"inner": {0: first}}


def test_unknown_keys_that_are_no_faults_are_not_touched() -> None:
    unknown = {f"k{at}": 1 for at in range(MANY)}

    assert InnerSchema().load(unknown, unknown=INCLUDE) == unknown
    assert InnerSchema(unknown=INCLUDE).load(unknown) == unknown
    assert InnerSchema().load(unknown, unknown=EXCLUDE) == {}


CALLS = {"role": "assistant", "tool_calls": [{}] * 100}


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (ChatRequestSchema, {"messages": [{}] * 1000}),
        (ChatRequestSchema, {"messages": [CALLS] * 1000}),
        (ChatRequestSchema, {"messages": [{"role": "user", "images": ["x"] * 20}] * 1000}),
        (ChatRequestSchema, {"message": "a", "tools": [{}] * 128}),
        (ChatRequestSchema, {"message": "a", "options": {f"k{at}": 1 for at in range(MANY)}}),
        (ImportSchema, [{"title": 5, "messages": "x"}] * MANY),
        (ImportSchema, {"conversations": [{"version": 1, "messages": [{"role": "x"}]}] * MANY}),
        (ImportSchema, {"version": 1, "messages": [{"role": "user"}] * MANY}),
        (ImportSchema, {**{f"k{at}": 1 for at in range(MANY)}, "version": 1, "messages": []}),
        (ImportSchema, [{"version": 1, "messages": [
            {"role": "assistant", "content": "", "data": {"tool_calls": [{}] * MANY}}] * 9}]),
        (OpenAIChatSchema, {"messages": ["x"] * MANY}),
        (SettingsSchema, {"pinned_models": ["/ "] * 1000}),
        (SettingsSchema, {"protected_models": ["/ "] * 1000}),
        (UpdateRequestSchema, {"models": [" "] * 1000}),
    ],
)  # fmt: skip
def test_body_with_many_faults_has_about_as_many_as_an_answer_names(
    schema: type[Schema], body: dict[str, Any]
) -> None:
    assert MOST_FAULTS <= count(faults_of(schema(), body)) < 3 * MOST_FAULTS


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (ChatRequestSchema, {"messages": [{}] * 1001}),
        (ChatRequestSchema, {"messages": [{"role": "assistant", "tool_calls": [{}] * 101}]}),
        (ChatRequestSchema, {"messages": [{"role": "user", "content": "a", "images": ["x"] * 21}]}),
        (ChatRequestSchema, {"message": "a", "images": ["x"] * 21}),
        (ChatRequestSchema, {"message": "a", "tools": [{}] * 129}),
        (CompareRequestSchema, {"message": "a", "targets": [{"z": 1}] * 9}),
        (ImportSchema, [{}] * 10_001),
        (SettingsSchema, {"pinned_models": ["/ "] * 1001}),
        (SettingsSchema, {"protected_models": ["/ "] * 1001}),
        (SettingsSchema, {"model_defaults": {f"/ {at}": 1 for at in range(1001)}}),
        (UpdateRequestSchema, {"models": [" "] * 1001}),
    ],
)
def test_list_beyond_its_limit_has_one_fault(schema: type[Schema], body: dict[str, Any]) -> None:
    assert count(faults_of(schema(), body)) == 1


def count(faults: Any) -> int:
    """Return the number of sentences in marshmallow's *faults*."""
    return sum(map(count, faults.values())) if isinstance(faults, dict) else len(faults)


def test_every_list_of_a_request_is_limited(app: Flask) -> None:
    """A list or object of a request's body whose items are checked is one of the limited types."""
    for schema in subclasses(RequestSchema):
        for name, field in schema().fields.items():
            has_checks = isinstance(field, fields.List) or getattr(field, "value_field", None)
            assert isinstance(field, Items | Table) or not has_checks or field.dump_only, (schema, name)


def subclasses(schema: type[Schema]) -> set[type[Schema]]:
    return {schema, *(inner for one in schema.__subclasses__() for inner in subclasses(one))}


def test_description_tells_the_limits_of_lists(client: FlaskClient) -> None:
    schemas = client.get("/api/openapi.json").get_json()["components"]["schemas"]

    messages = schemas["ChatRequest"]["properties"]["messages"]
    assert (messages["type"], messages["minItems"], messages["maxItems"]) == ("array", 1, 1000)
    assert schemas["Settings"]["properties"]["pinned_models"]["maxItems"] == 1000
    assert schemas["Settings"]["properties"]["model_defaults"]["type"] == "object"

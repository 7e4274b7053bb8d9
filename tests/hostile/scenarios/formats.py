"""Schemas and patterns that take for ever to check: the chat is answered, and the server answers others meanwhile."""

from __future__ import annotations

import functools
import json
from typing import Any

from tests.hostile.client import Answer, ask, together, watching
from tests.hostile.processes import Backend
from tests.hostile.run import Run
from tests.raw_server import raw_server

_SECONDS = 15
_ALMOST = json.dumps("a" * 40 + "!")
_OBJECTS = json.dumps([{"n": n, "x": [n]} for n in range(6000)])


def run(run: Run) -> None:
    provider = run.provider()
    backend = run.backend(provider, BACKEND_FIRST_BYTE_TIMEOUT="20")
    fetched = run.enter(raw_server(lambda connection: None))
    texts: dict[str, str] = {}
    provider.answer = lambda message: texts.get(message, "{}")
    attacks = _attacks(fetched.url)
    for number, (_, text) in enumerate(attacks.values()):
        texts[f"attack {number}"] = text
    ask(backend, "/api/chat", {"message": "Hi", "format": {"type": "object"}})
    schemas = [
        (name, f"attack {number}", schema) for number, (name, (schema, _)) in enumerate(attacks.items())
    ]
    if run.quick:
        schemas = run.rng.sample(schemas, 24)
    for first in range(0, len(schemas), 6):
        _attack(run, backend, schemas[first : first + 6])
    run.result.check(not fetched.requests, "the `$ref` of a client was fetched")
    code = backend.stop()
    run.result.check(code == 0, f"SIGTERM after the attacks: {code}")
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")


def _attack(run: Run, backend: Backend, schemas: list[tuple[str, str, Any]]) -> None:
    """Send some schemas at once; a server that is frozen then is started again, for those that follow."""
    before = backend.usage()["MB"]
    with watching(backend) as watch:
        answers = together(
            [functools.partial(_ask, backend, message, schema) for _, message, schema in schemas]
        )
    for (name, _, _), answer in zip(schemas, answers, strict=True):
        refused = answer.status == 400 and answer.error_type in {"invalid_request", "upstream_rejected"}
        run.result.check(answer.status == 200 or refused, f"{name}: {answer.describe()}")
    names = ", ".join(name for name, _, _ in schemas)
    run.result.check(not watch.unanswered, f"{names}: the health did not answer within 5 s")
    run.result.check(watch.peak - before < 500, f"{names}: the memory grew from {before} to {watch.peak} MB")
    if watch.unanswered and not backend.is_healthy():
        backend.restart()


def _ask(backend: Backend, message: str, schema: Any) -> Answer:
    body = (
        f'{{"message": "{message}", "format": {schema if isinstance(schema, str) else json.dumps(schema)}}}'
    )
    headers = {"Content-Type": "application/json"}
    return ask(backend, "/api/chat", data=body.encode(), headers=headers, timeout=_SECONDS)


def _doubling(levels: int) -> dict[str, Any]:
    """Return a schema of a few KB that is a tree of 2^levels when it is written out."""
    defs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**defs, f"d{levels}": {"type": "object"}}, "$ref": "#/$defs/d0"}


def _nested(levels: int) -> str:
    return '{"items": ' * levels + "{}" + "}" * levels


def _attacks(url: str) -> dict[str, tuple[Any, str]]:
    """Return each attack's schema, and what the model answers."""
    patterns = {
        "(a+)+": "^(a+)+$", "(a|a)*": "^(a|a)*$", "(a|aa)+": "^(a|aa)+$", "(.*a){25}": "^(.*a){25}$", "(a*)*b": "(a*)*b",
        "a back reference": r"^(a+)\1+$", "a look ahead": "^(?=(a+)+$)a*$", "\\w nested": r"^(\w+\s?)*$",
        "a huge count": "a{1000000}", "counts of counts": "((a{1,100}){1,100}){1,100}$", "no pattern": "(",
        "an atomic bomb": "(" * 3000 + "a" + ")" * 3000, "an astral class": "[\ud83d\ude00-\udbff]",
    }  # fmt: skip
    found: dict[str, tuple[Any, str]] = {
        f"pattern {name}": ({"type": "string", "pattern": pattern}, _ALMOST)
        for name, pattern in patterns.items()
    }
    evil = "^(a+)+$"
    names = json.dumps({"a" * 40 + "!": 1})
    found |= {
        "patternProperties": ({"type": "object", "patternProperties": {evil: {"type": "string"}}}, names),
        "propertyNames": ({"type": "object", "propertyNames": {"pattern": evil}}, names),
        "pattern in a list": ({"type": "array", "items": {"pattern": evil}}, json.dumps(["a" * 30 + "!"] * 50)),
        "format regex": ({"type": "string", "format": "regex"}, _ALMOST),
        "$defs that double": (_doubling(24), "{}"),
        "$defs that double, more": (_doubling(60), "{}"),
        "a $ref to itself": ({"$ref": "#"}, "{}"),
        "a circle of $ref": ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "{}"),
        "a $ref to nothing": ({"$ref": "#/nope"}, "{}"),
        "a $ref to a server": ({"$ref": f"{url}/schema"}, "{}"),
        "a $ref to a file": ({"$ref": "file:///etc/passwd"}, "{}"),
        "a $schema of a server": ({"$schema": f"{url}/meta", "type": "object"}, "{}"),
        "a type list of objects": ({"type": [{"x": n} for n in range(8000)]}, "{}"),
        "uniqueItems": ({"type": "array", "uniqueItems": True}, _OBJECTS),
        "contains": ({"type": "array", "contains": {"const": [{"n": 1}] * 500}, "minContains": 5000}, _OBJECTS),
        "a huge enum": ({"enum": [{"n": n} for n in range(20_000)]}, '{"n": -1}'),
        "a deep anyOf": (json.loads('{"anyOf": [{}, ' * 150 + "{}" + "]}" * 150), "{}"),
        "a wide anyOf": ({"type": "array", "items": {"anyOf": [{"const": n} for n in range(2000)]}}, json.dumps([-1] * 2000)),
        "unevaluated": ({"allOf": [{"properties": {f"p{n}": {}}} for n in range(2000)], "unevaluatedProperties": False}, "{}"),
        "a deep schema": (_nested(900), "{}"),
        "a deeper schema": (_nested(50_000), "{}"),
        "a deep answer": ({"type": "array"}, "[" * 50_000 + "]" * 50_000),
        "a deep answer to itself": ({"items": {"$ref": "#"}}, "[" * 900 + "]" * 900),
        "multipleOf 0": ({"type": "number", "multipleOf": 0}, "1"),
        "multipleOf 1e-300": ({"type": "number", "multipleOf": 1e-300}, "1e300"),
        "a length of 400 digits": ('{"type": "string", "minLength": ' + "9" * 400 + "}", '"a"'),
        "a number of 400 digits": ({"type": "number", "multipleOf": 0.1}, "9" * 400),
        "a number of 5,000 digits": ({"type": "integer"}, "9" * 5000),
        "NaN": ({"type": "number"}, "NaN"),
        "Infinity": ({"type": "number", "maximum": 1}, "-Infinity"),
        "half a character": ({"type": "string", "maxLength": 1}, '"\\ud800"'),
        "a bad required": ({"type": "object", "required": "x"}, "{}"),
        "bad properties": ({"type": "object", "properties": []}, "{}"),
        "properties of no schemas": ({"type": "object", "properties": {"a": 1}}, '{"a": 1}'),
        "a bad $id": ({"$id": "http://[::1", "$ref": "x"}, "{}"),
        "a $dynamicRef": ({"$dynamicAnchor": "a", "$dynamicRef": "#a"}, "{}"),
        "bad dependencies": ({"dependentRequired": {"a": 1}, "dependentSchemas": 5}, '{"a": 1}'),
        "items that is no schema": ({"type": "array", "items": 5}, "[1]"),
        "true": ("true", "{}"),
        "a list": ([], "{}"),
        "an empty schema": ({}, "no JSON"),
    }  # fmt: skip
    return found

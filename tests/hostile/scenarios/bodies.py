"""Valid bodies of every route, spoiled in one or more places: an answer, or our error body; never a fault of ours."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import requests

from tests.hostile.bodies import BODIES, FREE
from tests.hostile.client import fault_of
from tests.hostile.processes import Backend
from tests.hostile.result import Result
from tests.hostile.routes import filled, routes
from tests.hostile.run import Run

_DEEP = b"[" * 5000 + b"]" * 5000
_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 1e308, -0.0, 0.1, "", " ", "x", "\x00", "\u2028", "\ud800",
    "\udc00\ud83d", "x" * 100_000, "../../etc/passwd", "null", "-1", "NaN", "\r\nX-Evil: 1", "%00%2e%2e", "'; drop table x;--",
    [], {}, [[]], [None], {"": ""}, {"$ref": "#"}, [{}] * 1000, {"a": {"b": {"c": [1]}}}, "😀" * 1000, "a\u0301" * 500,
]  # fmt: skip
_TYPES = [
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16",
    "application/json; charset=nope", "APPLICATION/JSON", "application/problem+json", "application/octet-stream", "x", "",
    "application/json" + "; x=y" * 500,
]  # fmt: skip


def run(run: Run) -> None:
    provider = run.provider()
    backend = run.backend(provider, BACKEND_FIRST_BYTE_TIMEOUT="5", BACKEND_LIST_TIMEOUT="3")
    conversation = backend.call("POST", "/api/conversations", {}).json()["id"]
    for method, path, has_body in routes(backend):
        if not has_body or (method, path) in FREE:
            continue
        if (method, path) not in BODIES:
            run.result.check(
                False, f"no valid body is known for {method} {path}: add it to tests/hostile/bodies.py"
            )
            continue
        where = filled(path, conversation if "conversations" in path else "groq")
        for _ in range(run.pick(12, 150)):
            _attack(run.result, backend, method, where, *spoil(run.rng, BODIES[method, path]))
    backend.call("PUT", "/api/settings", {"default_provider": "ollama"})
    run.result.check(backend.is_healthy(), "the health does not answer at the end")
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")


def _attack(result: Result, backend: Backend, method: str, path: str, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    try:
        answer = backend.call(method, path, headers=headers, data=body, timeout=30)
    except requests.RequestException as exc:
        result.check(False, f"{method} {path}: {type(exc).__name__} for {_shown(body, kind)}")
        return
    fault = fault_of(answer.status_code, answer.text, answer.headers.get("X-Request-ID"))
    result.check(not fault, f"{method} {path}: {fault} for {_shown(body, kind)}")


def _shown(body: bytes, kind: str) -> str:
    note = "" if kind == "application/json" else f" as {kind[:40]!r}"
    return f"{len(body)} bytes {body[:300]!r}{note}"


def spoil(rng: random.Random, valid: dict[str, Any]) -> tuple[bytes, str]:
    """Return *valid* with one to three faults, as bytes, and a content type."""
    kind = "application/json"
    body = copy.deepcopy(valid)
    for name in rng.sample(sorted(body), rng.randrange(len(body))):  # fewer fields leave fewer other faults
        if rng.random() < 0.5 and name not in {"message", "model", "messages", "input", "id", "targets"}:
            del body[name]
    way = rng.randrange(10)
    if way < 6:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _replace(rng, body)
        return _dump(body), kind
    raw = _dump(body)
    if way == 6:
        return raw, rng.choice(_TYPES)
    return rng.choice(_BYTES)(rng, raw), kind


def _dump(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _replace(rng: random.Random, body: Any) -> None:
    """Put an odd value into a random place of *body*, or a field that nobody knows."""
    places = _places(body)
    holder, key = rng.choice(places)
    way = rng.randrange(8)
    if way == 0 and isinstance(holder, dict):
        holder[rng.choice(["unknown", "", "__proto__", "\u0000", "x" * 5000, "\ud800"])] = copy.deepcopy(
            rng.choice(_ODD)
        )
    elif way == 1:
        holder[key] = [holder[key]]
    elif way == 2:
        holder[key] = {"x": holder[key]}
    elif way == 3:
        holder[key] = str(holder[key])
    elif way == 4 and isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice([0, 2, 500])
    else:
        holder[key] = copy.deepcopy(rng.choice(_ODD))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return each place of a value, as what holds it and its key or number."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _twice(rng: random.Random, raw: bytes) -> bytes:
    """Name a field twice."""
    return b"{" + raw[1:-1] + b", " + raw[1:-1] + b"}"


def _cut(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))]


def _flip(rng: random.Random, raw: bytes) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]


def _deepen(rng: random.Random, raw: bytes) -> bytes:
    """Put a deep list in the place of a value."""
    place = raw.find(b": ", rng.randrange(len(raw)))
    return raw[: place + 2] + _DEEP + b"}" if place > 0 else _DEEP


def _number(rng: random.Random, raw: bytes) -> bytes:
    """Put a number that JSON does not have, or one that is too long, in the place of a value."""
    odd = [b"NaN", b"-Infinity", b"9" * 5000, b"1e999", b"1" + b"0" * 400, b"0x10", b"01", b"1_000"]
    place = raw.find(b": ", rng.randrange(len(raw)))
    return raw[: place + 2] + rng.choice(odd) + b"}"


def _encode(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice(
        [raw.decode("utf-8", "replace").encode("utf-16"), b"\xef\xbb\xbf" + raw, raw + b"\x00", raw + raw]
    )


_BYTES: list[Callable[[random.Random, bytes], bytes]] = [_twice, _cut, _flip, _deepen, _number, _encode]

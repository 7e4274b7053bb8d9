"""Schemathesis against a running backend, in a virtual environment of its own.

Schemathesis wants an older jsonschema-rs than the backend. It prints one JSON line for each attempt:
``[held, what was lost]``; the last line is the number of attempts for which there was no time.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from tests.hostile.client import fault_of

_PROMISES = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
_TIMEOUTS = {"first_byte": 5, "list": 2, "pull": 2, "idle": 5}


def main(url: str, seed_: int, examples: int, seconds: float) -> None:
    """Send *examples* allowed and *examples* forbidden requests to each operation, for some seconds."""
    load_all_checks()
    rng, deadline = random.Random(seed_), time.monotonic() + seconds
    operations = [
        found.ok() for found in schemathesis.openapi.from_url(f"{url}/api/openapi.json").get_all_operations()
    ]
    rng.shuffle(operations)
    late = 0
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if time.monotonic() > deadline:
                late += examples
                continue
            _attack(url, operation, mode, rng.randrange(10**6), examples)
        if "/settings" in operation.path:  # what was set must not stop the others
            requests.put(f"{url}/api/settings", json={"timeouts": _TIMEOUTS}, timeout=20)
    print(late)


def _attack(url: str, operation: Any, mode: GenerationMode, seed_: int, examples: int) -> None:
    def send(case: Any) -> None:
        fault = _fault(url, case)
        print(json.dumps([not fault, f"{case.method} {case.path}: {fault}"]))

    test = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(seed(seed_)(given(case=operation.as_strategy(generation_mode=mode))(send)))
    try:
        test()
    except HypothesisException:  # an operation without forbidden requests, such as one without parameters
        return


def _fault(url: str, case: Any) -> str:
    """Send a request; return in what the answer differs from its description."""
    try:
        answer = case.call(base_url=url, timeout=20)
    except (requests.RequestException, FailureGroup) as exc:
        return type(exc).__name__
    fault = fault_of(answer.status_code, answer.text, answer.headers.get("x-request-id", [None])[0])
    if fault:
        return fault
    try:
        case.validate_response(answer, checks=CHECKS.get_by_names(list(_PROMISES)))
    except FailureGroup as exc:
        found = exc.exceptions[0]
        text = " ".join(str(found).split()).partition(" Schema: ")[0]
        return f"{answer.status_code}: {type(found).__name__}: {text[:300]}"
    return ""


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))

"""Schemathesis: requests that the OpenAPI description allows and forbids; each answer is as it promises."""

from __future__ import annotations

import time
from typing import Any

from tests.hostile.client import fault_of
from tests.hostile.result import Skipped
from tests.hostile.run import Run


def run(run: Run) -> None:
    try:
        import schemathesis
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from schemathesis.generation import GenerationMode
    except ImportError as exc:
        raise Skipped("schemathesis is not installed") from exc
    provider = run.provider()
    backend = run.backend(
        provider, BACKEND_FIRST_BYTE_TIMEOUT="5", BACKEND_LIST_TIMEOUT="2", BACKEND_PULL_TIMEOUT="2"
    )
    schema = schemathesis.openapi.from_url(f"{backend.url}/api/openapi.json")
    checks = _checks()
    deadline = time.monotonic() + run.pick(35, 110)
    late = 0

    def attack(case: Any) -> None:
        nonlocal late
        if time.monotonic() > deadline:
            late += 1
            return
        name = f"{case.method} {case.path}"
        try:
            answer = case.call(base_url=backend.url, timeout=20)
        except Exception as exc:  # noqa: BLE001  # a timeout, or no connection
            run.result.check(False, f"{name}: {type(exc).__name__}")
            return
        id = answer.headers.get("x-request-id", [None])[0]
        fault = fault_of(answer.status_code, answer.text, id) or _broken_promise(case, answer, checks)
        run.result.check(not fault, f"{name}: {fault}")

    operations = [found.ok() for found in schema.get_all_operations()]
    run.rng.shuffle(operations)
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)
            test = given(case=strategy)(attack)
            test = settings(
                max_examples=run.pick(5, 25),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(seed(run.rng.randrange(10**6))(test))
            _run_test(test)
        if "/settings" in operation.path:  # what it set must not stop the others
            backend.call(
                "PUT", "/api/settings", {"timeouts": {"first_byte": 5, "list": 2, "pull": 2, "idle": 5}}
            )
    if late:
        run.result.note(f"{late} requests were left out for lack of time")
    run.result.check(backend.is_healthy(), "the health does not answer at the end")


def _run_test(test: Any) -> None:
    from hypothesis.errors import HypothesisException

    try:
        test()
    except HypothesisException:  # an operation without bad requests, such as one without parameters
        return


def _checks() -> list[Any]:
    from schemathesis.checks import CHECKS

    names = ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    return CHECKS.get_by_names([*names, "response_headers_conformance"])


def _broken_promise(case: Any, answer: Any, checks: list[Any]) -> str:
    """Return in what the answer differs from its description."""
    from schemathesis.core.failures import FailureGroup

    try:
        case.validate_response(answer, checks=checks)
    except FailureGroup as exc:
        found = exc.exceptions[0]
        text = " ".join(str(found).split()).partition(" Schema: ")[0]
        return f"{answer.status_code}: {type(found).__name__}: {text[:300]}"
    return ""

"""Schemathesis: requests that the OpenAPI description allows and forbids; each answer is as it promises."""

from __future__ import annotations

import json
import subprocess

from tests.hostile.processes import ROOT
from tests.hostile.result import Skipped
from tests.hostile.run import Run

_PYTHON = ROOT / "tests" / "hostile" / ".schemathesis" / "bin" / "python"


def run(run: Run) -> None:
    if not _PYTHON.exists():
        raise Skipped("schemathesis is not installed: `make hostile` installs it")
    timeouts = {
        f"BACKEND_{name}_TIMEOUT": seconds
        for name, seconds in (("FIRST_BYTE", "5"), ("LIST", "2"), ("PULL", "2"))
    }
    backend = run.backend(run.provider(), **timeouts)
    examples, seconds = run.pick((4, 20), (25, 150))
    command = [
        _PYTHON,
        "-m",
        "tests.hostile.conformance",
        backend.url,
        run.rng.randrange(10**6),
        examples,
        seconds,
    ]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            if isinstance(found, list):
                run.result.check(*found)
            elif found:
                run.result.note(f"{found} requests were left out for lack of time")
    run.result.check(process.returncode == 0, "schemathesis itself failed")
    run.result.check(backend.is_healthy(), "the health does not answer at the end")
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")

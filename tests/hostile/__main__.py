"""Run the scenarios, each in a process of its own with a time limit, and print the table."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.hostile.result import Skipped
from tests.hostile.run import Run

SCENARIOS: dict[str, int] = {  # the most seconds that each may take, on a busy machine too
    "access": 180,
    "bodies": 180,
    "openapi": 240,
    "upstreams": 400,
    "formats": 240,
    "stops": 400,
    "disks": 300,
    "clocks": 400,
    "databases": 400,
    "streams": 300,
    "connections": 300,
    "files": 300,
    "kills": 500,
    "soak": 400,
}


def main() -> None:
    options = _options()
    if options.scenario:
        _run_one(options.scenario, options)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = options.only or list(SCENARIOS)
    print(f"seed {options.seed}{', quick' if options.quick else ''}", flush=True)
    processes: list[subprocess.Popen[bytes]] = []

    def attack(name: str) -> dict[str, Any]:
        began = time.monotonic()
        result = _run_in_process(name, options, processes)
        result["seconds"] = round(time.monotonic() - began, 1)
        print(f"  {name}: {result['seconds']:.0f} s, {_outcome(result)}", flush=True)
        return result

    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            results = dict(zip(names, pool.map(attack, names), strict=True))
        except BaseException:  # Ctrl-C: what runs ends at once, and its thread sees to what it started
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
    print(_table(results), flush=True)
    _print_losses(results)
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "results": results}, indent=1))
    sys.exit(any(result["lost"] for result in results.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS)
    )
    parser.add_argument("--quick", action="store_true", help="fewer attempts: three minutes at most")
    parser.add_argument("--jobs", type=int, default=3, help="how many scenarios run at once")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="repeats the chances of a run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--scenario", choices=list(SCENARIOS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_in_process(
    name: str, options: argparse.Namespace, processes: list[subprocess.Popen[bytes]]
) -> dict[str, Any]:
    """Run one scenario in a process group, which is killed at the end whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f"hostile-{name}-"))
    file = folder / "result.json"
    command = [
        sys.executable, "-m", "tests.hostile", "--scenario", name, "--seed", str(options.seed), "--json", str(file),
        *(["--quick"] if options.quick else []),
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "TMPDIR": str(folder)})
    processes.append(process)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(SCENARIOS[name])
    finally:
        _end(process)
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        found = {"tried": 1, "survived": 0, "lost": 1, "losses": ["the scenario itself failed"], "notes": []}
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a scenario, which then ends what it started and reports how far it came; kill what is left."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.terminate()
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run_one(name: str, options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    module = importlib.import_module(f"tests.hostile.scenarios.{name}")
    run = Run(random.Random(f"{options.seed} {name}"), options.quick, Path(tempfile.mkdtemp()))
    try:
        with run.stack:
            module.run(run)
    except Skipped as exc:
        run.result.note(f"skipped: {exc}")
    except SystemExit:
        run.result.check(False, "the scenario did not end in time")
        raise
    except Exception as exc:  # noqa: BLE001  # what went wrong here must not hide what was found
        run.result.check(False, f"the scenario failed: {traceback.format_exception_only(exc)[-1].strip()}")
        traceback.print_exc()
    finally:
        options.json.write_text(json.dumps(run.result.dump()))


def _outcome(result: dict[str, Any]) -> str:
    return f"tried {result['tried']}, survived {result['survived']}, lost {result['lost']}"


def _table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| scenario | tried | survived | lost | note |", "| --- | ---: | ---: | ---: | --- |"]
    for name, result in results.items():
        counts = " | ".join(f"{result[count]:,}" for count in ("tried", "survived", "lost"))
        lines.append(f"| {name} | {counts} | {'; '.join(result['notes'])} |")
    return "\n" + "\n".join(lines)


def _print_losses(results: dict[str, dict[str, Any]]) -> None:
    for name, result in results.items():
        for loss in result["losses"][:30]:
            print(f"{name} lost: {loss}")
        if len(result["losses"]) > 30:
            print(f"{name} lost: and {len(result['losses']) - 30} more; --json FILE lists them")


if __name__ == "__main__":
    main()

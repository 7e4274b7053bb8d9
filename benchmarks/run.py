"""Measure all targets; print a table and write a JSON file.

Run it: ``make bench``, or ``python -m benchmarks.run --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Ask, Size
from benchmarks.table import table
from benchmarks.targets import ROOT, Target, targets

Json = dict[str, Any]
Measure = Callable[[int, Ask, Size], Coroutine[Any, Any, dict[str, float]]]

_IN_ROUNDS: tuple[Measure, ...] = (
    measure.latency,
    measure.first_token,
    measure.throughput,
    measure.relay,
)
_MORE_IS_BETTER = {"requests", "relay", "relay_many"}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    options = _options(arguments)
    _allow_many_connections()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        size = Size(**{name: getattr(options, name) for name in vars(Size())})
        results = _run(list(targets(Path(folder), options.targets)), size, options.rounds, stack)
    report = {**_machine(), "size": vars(size), "rounds": options.rounds, "targets": results}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))
    print(f"\nWritten to {options.json}", file=sys.stderr)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    every = ["nginx", "litellm", "backend", "gunicorn"]
    parser.add_argument("--targets", nargs="*", choices=every, default=every)
    parser.add_argument("--rounds", type=int, default=3, help="the best of them counts")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "latest.json")
    for name, value in vars(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args(arguments)


def _run(found: list[Target], size: Size, rounds: int, stack: ExitStack) -> list[Json]:
    """Measure every target in each round, so that other load on the machine slows all of them alike."""
    results: list[Json] = []
    for target in found:
        _say(f"starting {target.name}")
        stack.callback(target.stop)
        results.append(_start(target, rounds))
    for number in range(rounds):
        for target, result in zip(found, results, strict=True):
            _say(f"round {number + 1} of {rounds}: {target.name}")
            for measured in _IN_ROUNDS:
                figures = asyncio.run(measured(target.port, target.ask, size))
                _say(f"  {figures}")
                _note(result, figures)
    for target, result in zip(found, results, strict=True):
        _say(f"{size.streams} slow streams: {target.name}")
        cpu = target.cpu()
        result["figures"].update(asyncio.run(measure.slow_streams(target.port, target.ask, size)))
        after = target.cpu()
        result["figures"]["slow_cpu"] = None if cpu is None or after is None else round(after - cpu, 2)
        result["figures"]["memory_streams"] = target.memory()
    return results


def _start(target: Target, rounds: int) -> Json:
    """Start *target* several times, measure its memory before and after a chat, and leave it running."""
    seconds = []
    for _ in range(rounds):
        target.stop()
        seconds.append(target.start())
    target.settle()
    figures: Json = {"start": min(seconds), "memory_rest": target.memory()}
    first = asyncio.run(measure.latency(target.port, target.ask, Size(chats=1)))
    figures["first_chat"] = first["chat"]
    target.settle()
    figures["memory_chat"] = target.memory()
    return {"name": target.name, "version": target.version, "figures": figures, "rounds": []}


def _note(result: Json, measured: dict[str, float]) -> None:
    result["rounds"].append(measured)
    for name, value in measured.items():
        best = max if name in _MORE_IS_BETTER else min
        result["figures"][name] = best(value, result["figures"].get(name, value))


def _machine() -> Json:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _allow_many_connections() -> None:
    """Raise the limit of open files as far as the system allows; the targets inherit it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384) if hard > 0 else 16384, hard))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Measure all targets in rounds; print tables and write a JSON file.

Run it: ``make bench``, or ``python -m benchmarks.run --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.answers import AnswerError
from benchmarks.measure import QUICK, Figures, Measure, Size
from benchmarks.table import tables
from benchmarks.target import ROOT, Target
from benchmarks.targets import KINDS, targets

Json = dict[str, Any]

MEASURES = ("start", *measure.LOADS, "memory")


class Run:
    """The targets, and the figures of each round.

    The targets take turns: each makes each step once in each round, so that other load on the machine meets
    all alike.
    """

    def __init__(self, found: list[Target], measures: list[str], size: Size, rounds: int) -> None:
        self._targets = found
        self._measures = measures
        self._size = size
        self._count = rounds
        self._figures: list[list[Figures]] = [[] for _ in found]
        self._failures: list[dict[str, str]] = [{} for _ in found]

    def measure(self, stack: ExitStack) -> list[Json]:
        """Measure all; *stack* stops the targets. Return the results, one for each target."""
        for target in self._targets:
            stack.callback(target.stop)
        for number in range(self._count if "start" in self._measures else 1):
            self._start(number)
        self._memory("idle")
        self._load("warm-up", measure.warm_up, 0)
        for number in range(self._count):
            for name in filter(measure.LOADS.__contains__, self._measures):
                for step, load in measure.steps(name, self._size).items():
                    self._load(step, load, number)
        if "memory" in self._measures:
            _say(f"{self._size.pause:g} seconds of rest")
            time.sleep(self._size.pause)
            self._memory("after")
            for target, noted in zip(self._targets, self._figures, strict=True):
                noted.append({} if target.most_memory is None else {"memory_most": target.most_memory})
        return [self._result(number) for number in range(len(self._targets))]

    def _start(self, number: int) -> None:
        for target, noted in zip(self._targets, self._figures, strict=True):
            _say(f"start {number + 1}: {target.name}")
            target.stop()
            seconds = target.start()
            if "start" in self._measures:
                noted.append({"start": seconds})

    def _memory(self, when: str) -> None:
        if "memory" not in self._measures:
            return
        for target, noted in zip(self._targets, self._figures, strict=True):
            target.settle()
            memory = target.memory()
            noted.append({} if memory is None else {f"memory_{when}": memory})

    def _load(self, name: str, load: Measure, number: int) -> None:
        """Measure all targets, in odd rounds the last one first."""
        _say(f"round {number + 1} of {self._count}: {name}")
        rows = list(zip(self._targets, self._figures, self._failures, strict=True))
        for target, noted, failures in reversed(rows) if number % 2 else rows:
            try:
                figures = asyncio.run(load(target, self._size))
            except (AnswerError, OSError) as error:
                failures[name] = str(error)
                _say(f"  {target.name}: {error}")
                continue
            target.note_memory()
            noted.append(figures)
            told = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            _say(f"  {target.name}: {told}")

    def _result(self, number: int) -> Json:
        target = self._targets[number]
        values: dict[str, list[float]] = {}
        for figures in self._figures[number]:
            for name, value in figures.items():
                values.setdefault(name, []).append(round(value, 4))
        values.update(measure.within(values, self._size))
        medians = {
            name: {"median": statistics.median(found), "min": min(found), "max": max(found), "rounds": found}
            for name, found in values.items()
        }
        named = {"name": target.name, "kind": target.kind, "before": target.before, "version": target.version}
        return {**named, "failures": self._failures[number], "figures": medians}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON."""
    options = _options(arguments)
    _allow_many_connections()
    size = _size(options)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        found = list(targets(Path(folder), options.only, options.beside, options.server))
        results = Run(found, options.measure, size, options.rounds).measure(stack)
    report = {**_machine(), "size": vars(size), "rounds": options.rounds, "targets": results}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(tables(json.loads(options.json.read_text())))
    _say(f"\nWritten to {options.json}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.run", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="*", choices=KINDS, default=KINDS, metavar="TARGET", help=f"of {', '.join(KINDS)}")
    add("--measure", nargs="+", choices=MEASURES, default=MEASURES, metavar="NAME", help=", ".join(MEASURES))
    add("--beside", nargs="+", type=Path, default=[], metavar="PATH", help="another checkout, with its .venv")
    add("--server", nargs="+", default=[], metavar="COMMAND", help="serves app.wsgi:app on {port}")
    add("--rounds", type=int, default=None, help="the median of them counts (default: 3; quick: 1)")
    add("--quick", action="store_true", help="smaller measures, in two to three minutes")
    add("--json", type=Path, default=ROOT / "benchmarks" / "results" / "latest.json", help="where to write")
    for item in fields(Size):
        many = "+" if isinstance(item.default, tuple) else None
        one = item.default[0] if isinstance(item.default, tuple) else item.default
        add(f"--{item.name.replace('_', '-')}", type=type(one), nargs=many, help=f"(full: {item.default})")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def _size(options: argparse.Namespace) -> Size:
    given = {item.name: getattr(options, item.name) for item in fields(Size)}
    chosen: Json = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return replace(QUICK if options.quick else Size(), **chosen)


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

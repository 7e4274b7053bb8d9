"""The tables of a run, aligned to be read as plain text.

``python -m benchmarks.table FILE`` prints them; ``--readme`` writes README's table.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.target import ROOT

Json = dict[str, Any]
Column = tuple[str, str, int]
"""A figure's name, its label and its digits; a name with `+` is what it adds to the upstream."""

BUSY = 0.85
"""The share of a core from which on the load itself may be the limit."""

_WHOLE = "Chats, with the least and the most of the rounds"
_ENOUGH = 5000  # chats a second that the load must reach with the upstream alone
_LATE = 0.2  # seconds that the last token of the upstream's own streams may be late
MARKS = ("<!-- The table of benchmarks.table --readme -->", "<!-- The end of the table -->")
"""The lines of README around its table."""

_MORE_IS_BETTER = re.compile(r"clients_\d+_rate|within_\d+|relay.*")


def tables(report: Json) -> str:
    """Return all tables of *report*, and what limits them."""
    found = report["targets"]
    parts = [_machine(report), *_limits(found)]
    for title, columns in _all_columns(report["size"]).items():
        used = [column for column in columns if any(column[0].strip("+") in t["figures"] for t in found)]
        if used:
            parts += ["", title, "", *_table(found, used, spread=title == _WHOLE)]
    for target in found:
        parts += [f"{target['name']}: {name}: {why}" for name, why in target["failures"].items()]
    return "\n".join([*parts, *_ratios(found)])


def _all_columns(size: Json) -> dict[str, list[Column]]:
    chats: list[Column] = [
        ("chat", "chat ms", 2),
        ("+chat", "adds ms", 2),
        ("chat_p99", "p99 ms", 2),
        ("chat_cpu", "CPU ms", 2),
        ("first", "first token ms", 2),
        ("+first", "adds ms", 2),
        ("first_cpu", "CPU ms of a stream", 2),
    ]
    within: list[Column] = [(f"within_{tail}", f"p99 <= {tail} ms", 0) for tail in (5, 10, 50, 100)]
    clients = size["clients"]
    others: list[Column] = [
        ("relay", "tokens/s", 0),
        ("relay_many", "tokens/s in 16", 0),
        ("memory_idle", "MB idle", 0),
        ("memory_most", "MB under load", 0),
        ("memory_after", "MB after", 0),
        ("start", "ready s", 2),
    ]
    return {
        _WHOLE: chats,
        "Chats a second of n clients, and the most within a tail": [
            *((f"clients_{n}_rate", str(n), 0) for n in clients),
            *within,
        ],
        "Milliseconds at p50 of n clients": [(f"clients_{n}_p50", str(n), 1) for n in clients],
        "Milliseconds at p99 of n clients": [(f"clients_{n}_p99", str(n), 1) for n in clients],
        "CPU milliseconds of a chat of n clients": [(f"clients_{n}_cpu", str(n), 2) for n in clients],
        **{_paced_title(n): _paced(n) for n in size["streams"]},
        "Streams, memory and start": others,
    }


def _paced_title(streams: int) -> str:
    return f"{streams} paced stream{'s' * (streams > 1)}, one token each 20 ms"


def _paced(streams: int) -> list[Column]:
    columns: list[Column] = [
        ("lost", "tokens lost", 0),
        ("failed", "failed", 0),
        ("first", "first token ms", 1),
        ("gap", "gap p50 ms", 1),
        ("gap_p99", "gap p99 ms", 1),
        ("late", "last late s, p50", 2),
        ("late_max", "most", 2),
        ("cpu", "CPU us a token", 1),
    ]
    return [(f"paced_{streams}_{name}", label, digits) for name, label, digits in columns]


_README: list[Column] = [
    ("+chat", "adds ms", 2),
    ("chat_cpu", "CPU ms", 2),
    ("clients_1_rate", "chats/s, 1 client", 0),
    ("clients_16_rate", "16 clients", 0),
    ("within_50", "p99 <= 50 ms", 0),
    ("+first", "first token adds ms", 2),
    ("paced_300_lost", "300 streams: lost", 0),
    ("paced_300_late", "late s", 2),
    ("memory_idle", "MB idle", 0),
    ("memory_after", "MB after", 0),
    ("start", "ready s", 2),
]


def readme(report: Json) -> str:
    """Return README's table, without other checkouts."""
    found = [target for target in report["targets"] if not target["before"]]
    return "\n".join([_machine(report), *_limits(found), "", *_table(found, _README)])


def write_readme(report: Json, path: Path) -> None:
    """Put the table between its marks in the file at *path*.

    :raises ValueError: when the marks are not there
    """
    before, start, rest = path.read_text("utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not start or not end:
        raise ValueError(f"{path} has no lines {MARKS[0]} and {MARKS[1]}")
    path.write_text(f"{before}{start}\n\n{readme(report)}\n\n{end}{after}", "utf-8")


def _machine(report: Json) -> str:
    rounds = "one round" if report["rounds"] == 1 else f"the median of {report['rounds']} rounds"
    return (
        f"Measured on {report['date'][:10]}, {report['cores']} cores, {report['system']}, "
        f"Python {report['python']}; {rounds}."
    )


def _limits(found: list[Json]) -> list[str]:
    """Return a line for each figure that the load or the machine limits, not the target."""
    rates = [figure["median"] for name, figure in found[0]["figures"].items() if name.endswith("_rate")]
    lines = []
    if rates and max(rates) < _ENOUGH:
        lines.append(f"The load makes only {max(rates):,.0f} chats a second with the upstream alone.")
    for name, figure in found[0]["figures"].items():
        if re.fullmatch(r"paced_\d+_late", name) and figure["median"] > _LATE:
            streams, seconds = name.split("_")[1], figure["median"]
            lines.append(
                f"The machine is too busy for {streams} streams: the upstream's own are {seconds:.1f} s late."
            )
    for target in found:
        busy = [
            name.split("_")[1]
            for name, figure in target["figures"].items()
            if name.endswith("_busy") and figure["median"] > BUSY
        ]
        if busy:
            lines.append(f"The load is the limit of {target['name']} with {', '.join(busy)} clients.")
    return lines


def _table(found: list[Json], columns: list[Column], spread: bool = False) -> list[str]:
    base = found[0]
    head = ["", *(label for _, label, _ in columns)]
    rows = [[_name(t), *(_figure(t, base, column, spread) for column in columns)] for t in found]
    return _align([head, *rows])


def _figure(target: Json, base: Json, column: Column, spread: bool) -> str:
    name, _, digits = column
    if name.startswith("+"):
        own, bases = _median(target, name[1:]), _median(base, name[1:])
        return "-" if own is None or bases is None or target is base else f"{own - bases:,.{digits}f}"
    figure = target["figures"].get(name)
    if figure is None:
        return "-"
    text = f"{figure['median']:,.{digits}f}"
    several = spread and len(figure["rounds"]) > 1
    return f"{text} ({figure['min']:,.{digits}f}-{figure['max']:,.{digits}f})" if several else text


def _ratios(found: list[Json]) -> list[str]:
    """Return how many times as good this checkout is as those beside it: 2.0 is twice as fast."""
    lines: list[str] = []
    for before in filter(lambda target: target["before"], found):
        now = next((t for t in found if t["kind"] == before["kind"] and not t["before"]), None)
        if now is not None:
            lines += ["", f"{now['name']}: times as good as {before['name']}", "", *_ratio(now, before)]
    return lines


def _ratio(now: Json, before: Json) -> list[str]:
    """Return the ratio of each figure: the median, the least and the most of the ratios in each round."""
    rows = [["", "before", "now", "times as good", "least", "most"]]
    for name, other in before["figures"].items():
        one = now["figures"].get(name)
        if one is None or name.endswith(("_busy", "_lost", "_failed")):
            continue
        pairs = list(zip(one["rounds"], other["rounds"], strict=False))
        if _MORE_IS_BETTER.fullmatch(name):
            ratios = [own / base for own, base in pairs if base > 0]
        else:
            ratios = [base / own for own, base in pairs if own > 0]
        found = [statistics.median(ratios), min(ratios), max(ratios)] if ratios else []
        figures = [f"{figure['median']:,.4g}" for figure in (other, one)]
        rows.append([name, *figures, *([f"{ratio:.2f}" for ratio in found] or ["-"] * 3)])
    return _align(rows)


def _median(target: Json, name: str) -> float | None:
    figure = target["figures"].get(name)
    return None if figure is None else float(figure["median"])


def _name(target: Json) -> str:
    return f"{target['name']} {target['version']}".strip()


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in rows]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [lines[0], "| " + " | ".join(rule) + " |", *lines[1:]]


def _pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]


def main() -> None:
    """Print the tables of a run, or write README's."""
    parser = argparse.ArgumentParser(prog="benchmarks.table", description=__doc__)
    parser.add_argument("file", type=Path, help="the JSON of a run")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args()
    report = json.loads(options.file.read_text("utf-8"))
    if options.readme:
        write_readme(report, ROOT / "README.md")
    else:
        print(tables(report))


if __name__ == "__main__":
    main()

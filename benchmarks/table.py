"""The figures as a table of Markdown, aligned to be read as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

_COLUMNS = (
    ("chat", "chat ms", 2),
    ("chat_p95", "p95 ms", 2),
    ("requests", "chats/s", 0),
    ("first_token", "first token ms", 2),
    ("relay", "tokens/s", 0),
    ("relay_many", "tokens/s in 16", 0),
    ("failed", "slow failed", 0),
    ("late", "slow late s", 1),
    ("slow_cpu", "slow CPU s", 1),
    ("memory_rest", "MB at rest", 0),
    ("memory_chat", "MB after a chat", 0),
    ("start", "start s", 2),
)
_COMPARED = ("chat", "requests", "first_token", "relay", "relay_many", "memory_rest", "start")
_MORE_IS_BETTER = {"requests", "relay", "relay_many"}
_LABELS = {name: label for name, label, _ in _COLUMNS}


def table(report: Json) -> str:
    """Return the table of *report*, and below it the differences and ratios between the targets."""
    found = report["targets"]
    head = ["", *(label for _, label, _ in _COLUMNS)]
    rows = [[_name(t), *(_figure(t["figures"].get(n), d) for n, _, d in _COLUMNS)] for t in found]
    lines = [_machine(report), "", *_align([head, *rows])]
    base, litellm = found[0], next((t for t in found if t["name"].startswith("LiteLLM")), None)
    lines += ["", *_added(found[1:], base)]
    if litellm is not None:
        lines += ["", *_times([target for target in found[1:] if target is not litellm], litellm)]
    return "\n".join(lines)


def _machine(report: Json) -> str:
    size = report["size"]
    return (
        f"{report['date'][:10]}, {report['cores']} cores, {report['system']}, Python {report['python']}; "
        f"the best of {report['rounds']} rounds. {size['streams']} slow streams of {size['slow']} tokens."
    )


def _added(found: list[Json], base: Json) -> list[str]:
    """Return a table of the milliseconds that each target adds to those of *base*."""
    names = ("chat", "first_token")
    rows = [["added to the upstream", *(_LABELS[name] for name in names)]]
    for target in found:
        added = [target["figures"][name] - base["figures"][name] for name in names]
        rows.append([_name(target), *(_figure(value, 2) for value in added)])
    return _align(rows)


def _times(found: list[Json], base: Json) -> list[str]:
    """Return a table of the ratios to *base*; 2.0 is twice as fast, or half the memory or time."""
    rows = [[f"times as good as {_name(base)}", *(_LABELS[name].removesuffix(" ms") for name in _COMPARED)]]
    for target in found:
        row = [_name(target)]
        for name in _COMPARED:
            one, other = target["figures"][name], base["figures"][name]
            one, other = (other, one) if name in _MORE_IS_BETTER else (one, other)
            row.append(_figure(other / one if one and other else None, 1))
        rows.append(row)
    return _align(rows)


def _name(target: Json) -> str:
    return f"{target['name']} {target['version']}".strip()


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in rows]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [lines[0], "| " + " | ".join(rule) + " |", *lines[1:]]


def _pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]

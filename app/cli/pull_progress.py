"""Show the progress of a pull: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from app.errors import ServiceError
from app.services.pulls import PullService

Json = dict[str, Any]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def human_size(count: float) -> str:
    """Return *count* bytes for people, such as ``1.3 GB``; the units are decimal, as Ollama's are."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {_UNITS[-1]}"


def follow_pull(pulls: PullService, id: str, *, as_json: bool) -> None:
    """Show the progress of a pull until it ends.

    :raises ServiceError: the error that made the pull fail, or why it cannot be watched any more
    """
    events = _events(pulls, id)
    try:
        if as_json:
            for name, data in events:
                click.echo(json.dumps({"event": name, **data}))
        elif sys.stdout.isatty():
            _show_bar(events)
        else:
            _show_lines(events)
    except KeyboardInterrupt:
        _ask_what_becomes_of_it(pulls, id)
        return
    pulls.result(id)


def _events(pulls: PullService, id: str) -> Iterator[tuple[str, Json]]:
    try:
        for batch in pulls.watch(id, 0, ""):
            for name, data, _ in batch:
                yield name, data
    except ServiceError as exc:  # the pull cannot be watched any more; it may go on
        yield "error", exc.body("")
        raise


def _show_bar(events: Iterator[tuple[str, Json]]) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=None)
        for name, data in events:
            if name == "progress":
                text = data["status"] if data["status"] != "running" else data["step"] or "starting"
                progress.update(bar, description=text, total=data["total"], completed=data["completed"])
        progress.update(bar, description=name)


def _show_lines(events: Iterator[tuple[str, Json]]) -> None:
    """Print a line for each new step, and for each ten percent."""
    last: tuple[str, int] | None = None
    for name, data in events:
        if name != "progress":
            click.echo(data.get("message", name) if name == "done" else name)
            continue
        now = (data["step"] or data["status"], int((data["percent"] or 0) // 10))
        if now != last:
            speed = f" {human_size(data['bytes_per_second'])}/s" if data["bytes_per_second"] else ""
            click.echo(f"{now[0]} {data['percent'] or 0:g} %{speed}")
        last = now


def _ask_what_becomes_of_it(pulls: PullService, id: str) -> None:
    """Ask the user, after Ctrl-C, whether to go on; without a terminal, the pull goes on."""
    leave = True
    if sys.stdin.isatty():
        click.echo()
        leave = click.confirm("Leave the download running in the backend?", default=True)
    if leave:
        click.echo("A running backend goes on with the pull within seconds; else the next backend does.")
        return
    pulls.cancel(id)
    click.echo("Cancelled. Ollama keeps the downloaded bytes for the next pull.")

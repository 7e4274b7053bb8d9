"""A running pull: the progress lines that its clients share, and its failures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from app.engine.gojson import Object

_TICK_SECONDS = 0.06


class PullError(Exception):
    """The pull failed; the text is Ollama's message."""


class CancelledError(Exception):
    """The transfer was cancelled: its last client disconnected, or the engine stops."""


class Transfer:
    """The download of one model, and the progress lines for its clients."""

    def __init__(self) -> None:
        self.lines: list[Object] = []
        self.partials: list[Path] = []  # the files that it writes, one after the other
        self.progress: Object = {}
        self.error: str | None = None
        self.ended = False
        self.clients = 0
        self.cancelled = threading.Event()
        self.interrupt: Callable[[], None] = lambda: None
        self.changed = threading.Condition()

    def say(self, line: Object) -> None:
        """Add a *line*; clients that join later get it too."""
        with self.changed:
            self.progress = {}
            self.lines.append(line)
            self.changed.notify_all()

    def cancel(self) -> None:
        """Stop the transfer, also while it waits for the network."""
        self.cancelled.set()
        self.interrupt()

    def end(self, error: str | None = None) -> None:
        """Mark the transfer as over; its clients stop following it."""
        with self.changed:
            self.error, self.ended = error, True
            self.changed.notify_all()

    def follow(self, gone: Callable[[], bool]) -> Iterator[Object]:
        """Yield the lines so far and to come, and the progress of the present layer every 60 ms.

        :raises PullError: when the pull failed
        """
        seen = 0
        shown: Object = {}
        while not gone():
            with self.changed:
                if len(self.lines) == seen and not self.ended:
                    self.changed.wait(_TICK_SECONDS)
                fresh, progress, ended = self.lines[seen:], self.progress, self.ended
            seen += len(fresh)
            yield from fresh
            if progress and progress != shown:
                shown = progress
                yield progress
            if ended:
                break
        if self.error is not None:
            raise PullError(self.error)

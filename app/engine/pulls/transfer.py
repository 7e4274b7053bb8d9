"""A pull as its clients see it: the progress lines that they share, and its failures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.engine.gojson import Object

_TICK_SECONDS = 0.06


class PullError(Exception):
    """Why a pull failed, in Ollama's words."""


class CancelledError(Exception):
    """Nobody waits for the transfer any more."""


class Transfer:
    """The download of one model, and the lines that its clients are sent."""

    def __init__(self) -> None:
        self.lines: list[Object] = []
        self.progress: Object = {}
        self.error: str | None = None
        self.ended = False
        self.clients = 0
        self.cancelled = threading.Event()
        self.interrupt: Callable[[], None] = lambda: None
        self.changed = threading.Condition()

    def say(self, line: Object) -> None:
        """Add a *line* for every client, those who come later too."""
        with self.changed:
            self.progress = {}
            self.lines.append(line)
            self.changed.notify_all()

    def cancel(self) -> None:
        """Ask the transfer to stop, also where it waits for the network."""
        self.cancelled.set()
        self.interrupt()

    def end(self, error: str | None = None) -> None:
        """Mark the transfer as over; its clients stop following it."""
        with self.changed:
            self.error, self.ended = error, True
            self.changed.notify_all()

    def follow(self, gone: Callable[[], bool]) -> Iterator[Object]:
        """Yield the lines, and every 60 ms how far the present layer is.

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

"""An attempt on its way: the request goes out, and the answer comes in as events for the client."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterable

from app.config import Timeouts
from app.errors import ChatStopped, ModelNotFound, ServiceError
from app.schemas.chat_results import ChatResult
from app.services.chat.attempts import Attempt, Event
from app.services.chat.context_window import ContextWindows
from app.services.chat.dialects.base import Delta
from app.services.chat.model_choice import ModelChoice
from app.services.chat.result import remarks, result
from app.upstream.hanging_up import Register
from app.upstream.reading import Body, let_end, read_all, read_events

ANNOUNCE_AFTER = 2.0
"""Seconds without a word of the provider after which a stream begins all the same."""

_LOADING = {
    True: "reads the prompt, or waits for its turn",
    False: "is being loaded",
    None: "has not answered yet",
}


class Exchange:
    """One attempt on its way.

    :param stop: set when the answer is to be stopped
    """

    def __init__(
        self,
        attempt: Attempt,
        choice: ModelChoice,
        windows: ContextWindows,
        timeouts: Timeouts,
        stop: threading.Event,
    ) -> None:
        self._attempt = attempt
        self._choice = choice
        self._windows = windows
        self._timeouts = timeouts
        self._stop = stop
        self._stream = _Stream(attempt, windows)

    @property
    def is_announced(self) -> bool:
        """Whether the client was told that a stream begins, before the provider said anything."""
        return self._stream.is_announced

    def whole(self) -> Generator[list[Event], None, None]:
        """Yield an empty list in each half second, and `done` in the end."""
        attempt = self._attempt
        data = b""
        with (
            attempt.dialect.translated(attempt.model),
            contextlib.closing(read_all(self._open, limit=self._timeouts.first_byte)) as parts,
        ):
            for data in parts:
                self._check_stop()
                if not data:
                    yield []
        attempt.answer.load(data)
        yield [("done", dict(self._done()))]

    def events(self) -> Generator[list[Event], None, None]:
        """Yield `start`, `delta` ..., and `done` or `error`; empty lists in silent half seconds.

        What fails before the provider's first word is raised.
        """
        attempt, answer, stream = self._attempt, self._attempt.answer, self._stream
        timeouts = self._timeouts
        chunks = read_events(
            self._open, lambda: answer.events, first_byte=timeouts.first_byte, idle=timeouts.idle
        )
        try:
            try:
                with attempt.dialect.translated(attempt.model):
                    for data in chunks:
                        stream.take(answer.feed(data))
                        if answer.done:
                            break
                        yield stream.batch()
                        self._check_stop()
                    stream.take(answer.flush())
                    answer.end()
                last = ("done", dict(self._done()))
            except ServiceError as exc:
                if stream.is_empty:
                    raise
                attempt.error = exc
                last = ("error", exc.body(attempt.request_id))
            yield [*stream.begun(), last]
            let_end(chunks)
        finally:
            chunks.close()

    def _done(self) -> ChatResult:
        attempt = self._attempt
        attempt.ended_at = time.monotonic()
        attempt.is_done = True
        return result(attempt, self._windows.loaded(attempt.provider, attempt.model, seen=True))

    def _check_stop(self) -> None:
        if self._stop.is_set():
            text = self._attempt.text
            raise ChatStopped(
                "The answer was stopped.",
                hint="What came before is all there is of it.",
                details={"response": text} if text else {},
            )

    def _open(self, register: Register) -> Body:
        """Send the request; where the configured model is absent, with one that is there."""
        attempt, choice = self._attempt, self._choice
        if attempt.needs or not attempt.model:
            choice.prepare(attempt)
        try:
            return attempt.dialect.open(attempt.model, attempt.request, register)
        except ModelNotFound as exc:
            choice.replace(attempt, exc)
            return attempt.dialect.open(attempt.model, attempt.request, register)


class _Stream:
    """What the client of a stream was told, and what it is to be told next."""

    def __init__(self, attempt: Attempt, windows: ContextWindows) -> None:
        self._attempt = attempt
        self._windows = windows
        self._deltas: list[Delta] = []
        self._has_begun = False
        self.is_announced = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the answer came yet."""
        return not (self._has_begun or self._deltas)

    def take(self, deltas: Iterable[Delta]) -> None:
        """Keep *deltas* for the next batch, also those before a failure."""
        for delta in deltas:
            self._deltas.append(delta)

    def batch(self) -> list[Event]:
        """Return the events that a read brought."""
        if self.is_empty:
            return self._announced()
        if self._deltas:
            self._attempt.reads += 1
        return self.begun()

    def begun(self) -> list[Event]:
        """Return the events that wait, the first ones of the answer after `start`."""
        events: list[Event] = []
        if not self._has_begun:
            self._has_begun = True
            self._attempt.first_token_at = time.monotonic()
            if not self.is_announced:
                events.append(("start", self._start()))
        events += [("delta", dict(delta)) for delta in self._deltas]
        self._deltas = []
        return events

    def _announced(self) -> list[Event]:
        """Return the first events of a stream whose provider takes its time; once."""
        attempt = self._attempt
        if self.is_announced or attempt.seconds < ANNOUNCE_AFTER:
            return []
        self.is_announced = True
        events: list[Event] = [("start", self._start(is_early=True))]
        if attempt.provider.is_ollama:
            is_loaded, _ = self._windows.look(attempt.provider, attempt.model)
            message = f"'{attempt.model}' {_LOADING[is_loaded]}."
            loading = {"model": attempt.model, "loaded": is_loaded, "waited": round(attempt.seconds, 1)}
            events.append(("loading", {**loading, "message": message}))
        return events

    def _start(self, *, is_early: bool = False) -> dict[str, object]:
        """Return what a stream begins with, as of now.

        :param is_early: whether the provider has said nothing yet: another model may have to be chosen
        """
        attempt = self._attempt
        attempt.is_started = True
        start: dict[str, object] = {"request_id": attempt.request_id, "provider": attempt.provider.id}
        if not is_early or attempt.model_is_named:
            start["model"] = attempt.model
        return {**start, **remarks(attempt)}

"""Run one attempt: send its request, and turn the answer into events for the client."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterable
from functools import partial

from app.errors import ChatStopped, ModelNotFound, ServiceError
from app.schemas.chat_results import ChatResult
from app.services.chat.attempts import Attempt, Event
from app.services.chat.context_window import ContextWindows
from app.services.chat.dialects.answers import Delta
from app.services.chat.model_choice import ModelChoice
from app.services.chat.result import remarks, result
from app.upstream.reading import Opening, let_end, read, read_all
from app.upstream.threaded import in_thread

ANNOUNCE_AFTER = 2.0
"""Seconds after which a stream sends `start` although the provider has not answered yet."""

_LOADING = {
    True: "reads the prompt, or waits for its turn",
    False: "is being loaded",
    None: "has not answered yet",
}


class Exchange:
    """Runs one attempt.

    :param stop: is set to stop the answer
    """

    def __init__(
        self,
        attempt: Attempt,
        choice: ModelChoice,
        windows: ContextWindows,
        stop: threading.Event,
    ) -> None:
        self._attempt = attempt
        self._choice = choice
        self._windows = windows
        self._stop = stop
        self._stream = _Stream(attempt, windows)

    @property
    def is_announced(self) -> bool:
        """Whether the client got `start` before the provider answered."""
        return self._stream.is_announced

    def whole(self) -> Generator[list[Event], None, None]:
        """Yield an empty list in each tick, and at last `done` with the whole answer."""
        attempt = self._attempt
        data = b""
        with (
            attempt.dialect.translated(),
            contextlib.closing(read_all(self._open(), limit=attempt.timeouts.first_byte)) as parts,
        ):
            for data in parts:
                self._check_stop()
                if not data:
                    yield []
        attempt.answer.load(data)
        yield [("done", dict(self._done()))]

    def events(self) -> Generator[list[Event], None, None]:
        """Yield `start`, `delta` ..., and `done` or `error`; yield an empty list in each silent tick.

        An error before the first part of the answer is raised, so that a fallback can take over.
        """
        attempt, answer, stream = self._attempt, self._attempt.answer, self._stream
        timeouts = attempt.timeouts
        chunks = read(
            self._open(), first_byte=timeouts.first_byte, idle=timeouts.idle, progress=lambda: answer.events
        )
        try:
            batch: list[Event] = []
            try:
                with attempt.dialect.translated():
                    for data in chunks:
                        stream.take(answer.feed(data))
                        if answer.done:
                            break
                        yield stream.batch()
                        self._check_stop()
                    stream.take(answer.flush())
                    answer.end()
                batch = stream.begun()  # before the result, which tells when the first token came
                last = ("done", dict(self._done()))
            except ServiceError as exc:
                if stream.is_empty:
                    raise
                chunks.close()  # the provider stops before the client takes the last event
                attempt.error = exc
                batch += stream.begun()
                last = ("error", exc.body(attempt.request_id))
            yield [*batch, last]
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
                hint="details.response holds the text that came before, if there is any.",
                details={"response": text} if text else {},
            )

    def _open(self) -> Opening:
        """Send the request; if the configured model is not installed, send it again with another model."""
        attempt, choice = self._attempt, self._choice
        if attempt.needs or not attempt.model:
            yield from in_thread(partial(choice.prepare, attempt))
        try:
            return (yield from attempt.dialect.open(attempt.model, attempt.request))
        except ModelNotFound as exc:
            yield from in_thread(partial(choice.replace, attempt, exc))
            return (yield from attempt.dialect.open(attempt.model, attempt.request))


class _Stream:
    """The events of a stream: those that were sent, and those that wait for the next batch."""

    def __init__(self, attempt: Attempt, windows: ContextWindows) -> None:
        self._attempt = attempt
        self._windows = windows
        self._deltas: list[Delta] = []
        self._has_begun = False
        self.is_announced = False

    @property
    def is_empty(self) -> bool:
        """Whether no part of the answer came yet."""
        return not (self._has_begun or self._deltas)

    def take(self, deltas: Iterable[Delta]) -> None:
        """Keep *deltas* for the next batch."""
        for delta in deltas:  # one by one: those before an error of the iterator are kept
            self._deltas.append(delta)

    def batch(self) -> list[Event]:
        """Return the events for the client after a read."""
        if self.is_empty:
            return self._announced()
        if self._deltas:
            self._attempt.reads += 1
        return self.begun()

    def begun(self) -> list[Event]:
        """Return the waiting events, with `start` before the first ones."""
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
        """Return `start`, and for Ollama `loading`, once the provider has been silent for ANNOUNCE_AFTER."""
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
        """Return the data of `start`.

        :param is_early: whether the provider has not answered yet: then another model may still be chosen, so
            `start` names the model only if the request does
        """
        attempt = self._attempt
        attempt.is_started = True
        start: dict[str, object] = {"request_id": attempt.request_id, "provider": attempt.provider.id}
        if not is_early or attempt.model_is_named:
            start["model"] = attempt.model
        return {**start, **remarks(attempt)}

"""What goes to and fro in one call: the request out, the answer in, as events for the client."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from app.config import Timeouts
from app.errors import ChatStopped, ModelNotFound, ServiceError
from app.services.chat.attempt import Call, Event
from app.services.chat.context_window import Windows
from app.services.chat.model_choice import ModelChoice
from app.upstream.reading import Body, Register, let_end, read, read_all

Json = dict[str, Any]

ANNOUNCE_AFTER = 2.0
"""Seconds without a word of the upstream after which a stream begins all the same."""


_LOADING = {
    True: "reads the prompt, or waits for its turn",
    False: "is being loaded",
    None: "has not answered yet",
}


class Exchange:
    """One call on its way.

    :param stop: set when the answer is to be stopped
    """

    def __init__(
        self, call: Call, choice: ModelChoice, windows: Windows, timeouts: Timeouts, stop: threading.Event
    ) -> None:
        self._call = call
        self._choice = choice
        self._windows = windows
        self._timeouts = timeouts
        self._stop = stop
        self.is_announced = False

    def whole(self) -> Generator[list[Event], None, None]:
        """Yield an empty list in each half second, and `done` in the end."""
        call = self._call
        data = b""
        limit = self._timeouts.first_byte
        with (
            call.route.translated(call.model),
            contextlib.closing(read_all(self._open, limit=limit)) as parts,
        ):
            for data in parts:
                self._check_stop()
                if not data:
                    yield []
        call.answer.load(data)
        yield [("done", self._done())]

    def events(self) -> Generator[list[Event], None, None]:
        """Yield `start`, `delta` ..., and `done` or `error`; empty lists in silent half seconds.

        What fails before the upstream's first word is raised.
        """
        call, answer = self._call, self._call.answer
        chunks = self._read()
        batch: list[Event] = []
        has_begun = False
        try:
            try:
                with call.route.translated(call.model):
                    for data in chunks:
                        for delta in answer.feed(data):
                            batch.append(("delta", delta))  # kept when feed raises
                            if not has_begun:  # the first token does not wait for those behind it
                                yield self._begin(batch)
                                has_begun, batch = True, []
                                call.reads = 1
                        if answer.done:
                            break
                        if batch:
                            call.reads += 1
                        elif not has_begun:
                            batch = self._announce()
                        yield batch
                        batch = []
                    batch += [("delta", delta) for delta in answer.flush()]
                    answer.end()
                if not has_begun:
                    batch = self._begin(batch)
                last = ("done", self._done())
            except ServiceError as exc:
                if not (has_begun or batch):
                    raise
                call.error = exc
                batch = batch if has_begun else self._begin(batch)
                last = ("error", exc.body(call.request_id))
            yield [*batch, last]
            let_end(chunks)
        finally:
            chunks.close()

    def _begin(self, batch: list[Event]) -> list[Event]:
        """Return the first events of the answer itself."""
        self._call.first_token_at = time.monotonic()
        return batch if self.is_announced else [("start", self._call.start()), *batch]

    def _announce(self) -> list[Event]:
        """Return the first events of a stream whose upstream takes its time; once."""
        call = self._call
        if self.is_announced or call.seconds < ANNOUNCE_AFTER:
            return []
        self.is_announced = True
        events: list[Event] = [("start", call.start(is_early=True))]
        if call.provider.is_ollama:
            is_loaded, _ = self._windows.look(call.provider, call.model)
            message = f"'{call.model}' {_LOADING[is_loaded]}."
            loading = {"model": call.model, "loaded": is_loaded, "waited": round(call.seconds, 1)}
            events.append(("loading", {**loading, "message": message}))
        return events

    def _done(self) -> Json:
        call = self._call
        call.ended_at = time.monotonic()
        call.is_done = True
        return call.result(self._windows.loaded(call.provider, call.model, seen=True))

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise ChatStopped(
                "The answer was stopped.",
                hint="What came before is all there is of it.",
                details={"response": self._call.text} if self._call.text else {},
            )

    def _read(self) -> Generator[bytes, None, None]:
        """Yield the bytes of a stream, until it is to stop."""
        timeouts, answer = self._timeouts, self._call.answer
        chunks = read(
            self._open, first_byte=timeouts.first_byte, idle=timeouts.idle, progress=lambda: answer.events
        )
        try:
            for data in chunks:
                yield data
                self._check_stop()
        finally:
            chunks.close()

    def _open(self, register: Register) -> Body:
        """Send the call; where it names no model and the configured one is absent, with one that is there."""
        call, choice = self._call, self._choice
        if not call.model:
            choice.choose(call)
        choice.check(call)
        try:
            return self._send(register)
        except ModelNotFound as exc:
            if call.model_is_named or not call.provider.is_ollama:
                raise choice.not_found(call) from exc
            choice.choose(call)
            choice.check(call)
            return self._send(register)

    def _send(self, register: Register) -> Body:
        call = self._call
        if call.is_native:
            options = call.request.get("options", {})
            call.loaded_before = self._windows.loaded(call.provider, call.model)
            window = self._windows.for_request(call.provider, call.model, options.get("num_ctx"))
            if window is not None:
                call.request["options"] = {**options, "num_ctx": window}
        return call.open(register)


Ended = Callable[[Call], None]
"""Is told each call when it is over, however it ended."""

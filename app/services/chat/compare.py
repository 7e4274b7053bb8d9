"""Send one question to several models at once; the failure of one does not affect the others."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator
from functools import partial
from queue import SimpleQueue
from typing import Any, cast

from app.errors import ChatStopped, ServerStopping, ServiceError, server_failed
from app.schemas.chat import ChatBody
from app.services.chat.attempts import Event
from app.services.chat.service import ChatService
from app.services.chat.stops import Stops
from app.services.settings import SettingsStore
from app.threads import Threads
from app.upstream.threaded import take

log = logging.getLogger(__name__)

Json = dict[str, Any]

_threads = Threads("compare")

_NAMES = {"done": "answer", "error": "failed", "delta": "delta", "loading": "loading"}


class CompareService:
    """Asks several models at once."""

    def __init__(self, chat: ChatService, stops: Stops, settings: SettingsStore) -> None:
        self._chat = chat
        self._settings = settings
        self._stops = stops

    def answer(self, body: Json, request_id: str) -> Generator[list[Event], None, None]:
        """Send the question in *body*, as ``CompareRequestSchema`` loads it, to each of its `targets`.

        Yields `start`, then `loading`, `delta`, `answer` and `failed` as they come, each with the number of
        its `target`, and at last `done` with all results. Without `stream`, yields only `done`. Yields an
        empty list in each silent tick. Closing the generator stops all answers.

        :raises ChatStopped: when the answers are stopped, and `stream` is false
        :raises ServerStopping: when this process is being stopped, and `stream` is false
        """
        targets: list[Json] = body["targets"]
        question = {name: value for name, value in body.items() if name != "targets"}
        results: list[Json] = [{} for _ in targets]
        queue: SimpleQueue[list[Event]] = SimpleQueue()
        over = threading.Event()
        for number, target in enumerate(targets):
            asked = cast("ChatBody", {**question, **target, "fallback_provider": None})
            _threads.run(partial(self._ask, asked, request_id, number, queue, over))
        try:
            if body["stream"]:
                yield [("start", {"request_id": request_id, "targets": targets})]
            with self._stops.running(request_id) as stop:
                while not all(results) and not stop.is_set():
                    batch = [event for events in take(queue) for event in events]
                    for name, data in batch:
                        if name in {"answer", "failed"}:
                            results[data["target"]] = data
                    yield batch if body["stream"] else []
        finally:
            over.set()
        error: ServiceError = ChatStopped("The answers were stopped.")
        if any(result.get("error_type") == ServerStopping.error_type for result in results):
            error = ServerStopping()
        elif all(results):
            yield [("done", {"results": results, "request_id": request_id})]
            return
        if not body["stream"]:
            raise error
        yield [("error", error.body(request_id))]

    def _ask(
        self,
        body: ChatBody,
        request_id: str,
        number: int,
        queue: SimpleQueue[list[Event]],
        over: threading.Event,
    ) -> None:
        """Ask one target, in its own thread, and put the events into *queue* until *over* is set."""
        provider = body.get("provider") or self._settings.all()["default_provider"]
        who = {"target": number, "provider": provider, "model": body.get("model")}
        try:
            with contextlib.closing(self._chat.answer(body, f"{request_id[:60]}-{number}")) as events:
                for batch in events:
                    if over.is_set():
                        return
                    found = [_named(event, who) for event in batch if event[0] in _NAMES]
                    if found:
                        queue.put(found)
        except ServiceError as exc:
            queue.put([("failed", {**who, "ok": False, **exc.body(request_id)})])
        except Exception:  # the thread's outermost edge: answer() waits for a result from each thread
            log.exception("%s a comparison failed", request_id)
            queue.put([("failed", {**who, "ok": False, **server_failed().body(request_id)})])


def _named(event: Event, who: Json) -> Event:
    """Return an event of a chat as an event of the comparison."""
    name, data = event
    if name in {"done", "error"}:
        return _NAMES[name], {**who, "ok": name == "done", **data}
    return _NAMES[name], {"target": who["target"], **data}

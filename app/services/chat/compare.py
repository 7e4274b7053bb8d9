"""One question to several models side by side; one that fails does not hurt the others."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator
from functools import partial
from queue import SimpleQueue
from typing import Any, cast

from app.errors import ChatStopped, ServiceError, error_body
from app.schemas.chat import ChatBody
from app.services.chat.attempts import Event
from app.services.chat.service import ChatService
from app.services.chat.stops import Stops
from app.services.settings import SettingsStore
from app.threads import Threads
from app.upstream.reading import take

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
        """Ask every one of `targets` what *body*, as ``CompareRequestSchema`` loads it, asks.

        Yields `start`, then `delta`, `answer` and `failed` with the number of their `target` as they come,
        and `done` with all results in the end; without `stream` only that. An empty list in silent half
        seconds. Closing the generator ends all of them.
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
        if all(results):
            yield [("done", {"results": results, "request_id": request_id})]
            return
        error = ChatStopped("The answers were stopped.")
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
        """Ask one of them; a thread of its own."""
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
        except Exception:  # the thread's outermost edge: the others must not wait for it
            log.exception("%s a comparison failed", request_id)
            fault = error_body("The server failed. Its log says more.", "internal_error", request_id)
            queue.put([("failed", {**who, "ok": False, **fault})])


def _named(event: Event, who: Json) -> Event:
    """Return an event of one answer as one of the comparison."""
    name, data = event
    if name in {"done", "error"}:
        return _NAMES[name], {**who, "ok": name == "done", **data}
    return _NAMES[name], {"target": who["target"], **data}

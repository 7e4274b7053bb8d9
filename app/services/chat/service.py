"""Answer chats: make one attempt after another, until one succeeds or the failure is final."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from app.errors import ServiceError
from app.schemas.chat import ChatBody
from app.services.chat.attempts import Attempt, Attempts, Event
from app.services.chat.context_window import ContextWindows
from app.services.chat.exchange import Exchange
from app.services.chat.fallback import FALLBACK_AFTER, joined
from app.services.chat.model_choice import ModelChoice
from app.services.chat.result import record
from app.services.chat.stops import Stops
from app.services.providers import Circuits
from app.services.usage import UsageLog

log = logging.getLogger(__name__)

Events = Generator[list[Event], None, None]


class ChatService:
    """Answers chats."""

    def __init__(
        self,
        attempts: Attempts,
        choice: ModelChoice,
        windows: ContextWindows,
        circuits: Circuits,
        stops: Stops,
        usage: UsageLog,
    ) -> None:
        self._attempts = attempts
        self._choice = choice
        self._windows = windows
        self._circuits = circuits
        self._stops = stops
        self._usage = usage

    def answer(
        self, body: ChatBody, request_id: str, begun: Callable[[Attempt], None] = lambda _: None
    ) -> Events:
        """Answer *body*.

        Without `stream`, yields an empty list in each tick, and at last `done`.

        With `stream`, yields the events that came together, or an empty list in each silent tick. The first
        event is `start`, the last one `done` or `error`; an error before `start` is raised. When the provider
        is slow, `start` comes before its answer, and then `loading` if the provider is Ollama. If the
        fallback takes over after that, the stream has a second `start`.

        :param begun: is called with each attempt before its first event
        """
        with self._stops.running(request_id) as stop:
            first_error: ServiceError | None = None
            is_announced = False
            for attempt in self._attempts.of(body, request_id):
                attempt.first_error = first_error
                begun(attempt)
                exchange = Exchange(attempt, self._choice, self._windows, stop)
                try:
                    with self._noted(attempt):
                        yield from exchange.events() if attempt.is_streamed else exchange.whole()
                except ServiceError as exc:
                    is_announced |= exchange.is_announced
                    may_go_on = first_error is None and isinstance(exc, FALLBACK_AFTER)
                    first_error = joined(first_error, exc, request_id)
                    if not may_go_on:
                        break
                else:
                    return
            if first_error is None:
                raise AssertionError("there is always a first attempt")
            if not is_announced:
                raise first_error
            yield [("error", first_error.body(request_id))]

    def stop(self, request_id: str) -> None:
        """Stop the running answer to the request *request_id*.

        :raises ChatNotRunning: when there is none
        """
        self._stops.stop(request_id)

    @contextmanager
    def _noted(self, attempt: Attempt) -> Iterator[None]:
        """Record how *attempt*, which runs in this block, ends: in its provider's circuit and in the usage.

        :raises ServiceError: while the circuit is open
        """
        self._circuits.check(attempt.provider)  # a refused attempt asks nobody: the usage does not have it
        try:
            yield
            self._circuits.worked(attempt.provider)
        except ServiceError as exc:
            attempt.error = exc
            self._circuits.failed(attempt.provider, exc, attempt.seconds)
            raise
        finally:
            self._keep(attempt)

    def _keep(self, attempt: Attempt) -> None:
        call = record(attempt)
        self._usage.record(call)
        log.info(
            "%s %s/%s: %s, %s tokens in %.2f s",
            attempt.request_id,
            attempt.provider.id,
            attempt.model.encode("unicode_escape").decode("ascii"),  # no forged lines in the log
            call.outcome,
            call.completion_tokens,
            call.latency,
        )

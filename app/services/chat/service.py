"""Chats: a request goes to a provider, its answer comes back whole or as a stream of events."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from app.errors import (
    ChatStopped,
    RateLimited,
    ServiceError,
    UpstreamBusy,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.services.chat.attempt import Call, Event
from app.services.chat.attempts import Calls
from app.services.chat.context_window import Windows
from app.services.chat.exchange import Exchange
from app.services.chat.model_choice import ModelChoice
from app.services.chat.stops import Stops
from app.services.providers.circuits import Circuits
from app.services.settings import SettingsStore
from app.services.usage.log import UsageLog

log = logging.getLogger(__name__)

Json = dict[str, Any]
Events = Generator[list[Event], None, None]

_FALLBACK_AFTER = (UpstreamUnavailable, UpstreamBusy, UpstreamTimeout, UpstreamIncomplete, RateLimited)


class ChatService:
    """Answers chats."""

    def __init__(
        self,
        calls: Calls,
        choice: ModelChoice,
        windows: Windows,
        circuits: Circuits,
        stops: Stops,
        settings: SettingsStore,
        usage: UsageLog,
    ) -> None:
        self._calls = calls
        self._choice = choice
        self._windows = windows
        self._circuits = circuits
        self._stops = stops
        self._settings = settings
        self._usage = usage

    def answer(self, body: Json, request_id: str) -> Events:
        """Answer *body*, as :class:`~app.schemas.chat.ChatRequestSchema` loads it.

        Where its `stream` is false: yields an empty list in each half second, and `done` in the end.

        Where it is true: yields events, all that came at a time, and an empty list in each silent half
        second. The first is `start`, the last `done` or `error`; what fails before `start` is raised.
        When the upstream takes its time, `start` comes before its first word, and `loading` where it is an
        Ollama; should the fallback have to take over then, there is another `start`.
        """
        with self._stops.running(request_id) as stop:
            first_error: ServiceError | None = None
            is_announced = False
            for call in self._calls.all(body, request_id):
                call.first_error = first_error
                exchange = Exchange(call, self._choice, self._windows, self._settings.timeouts, stop)
                try:
                    yield from self._one(call, exchange)
                except ServiceError as exc:
                    is_announced |= exchange.is_announced
                    may_go_on = first_error is None and isinstance(exc, _FALLBACK_AFTER)
                    first_error = _joined(first_error, exc, request_id)
                    if not may_go_on:
                        break
                else:
                    return
            if first_error is None:
                raise AssertionError("there is always a first call")
            if not is_announced:
                raise first_error
            yield [("error", first_error.body(request_id))]

    def _one(self, call: Call, exchange: Exchange) -> Events:
        self._circuits.check(call.provider)
        try:
            yield from exchange.events() if call.is_streamed else exchange.whole()
            self._circuits.worked(call.provider)
        except ServiceError as exc:
            call.error = exc
            self._circuits.failed(call.provider, exc, call.seconds)
            raise
        finally:
            self._note(call)

    def _note(self, call: Call) -> None:
        """Keep what is to be known of a call that is over."""
        record = call.record()
        self._usage.record(record)
        log.info(
            "%s %s/%s: %s, %s tokens in %.2f s",
            call.request_id,
            call.provider.id,
            call.model.encode("unicode_escape").decode("ascii"),  # no forged lines in the log
            record.outcome,
            record.completion_tokens,
            record.latency,
        )

    def stop(self, request_id: str) -> None:
        """Stop the answer that is made for *request_id*.

        :raises ChatNotRunning: when none is
        """
        self._stops.stop(request_id)


def _joined(first: ServiceError | None, second: ServiceError, request_id: str) -> ServiceError:
    """Return the error to report: the first one, which tells of the fallback's; but a stop is a stop."""
    if first is None or isinstance(second, ChatStopped):
        return second
    first.details = {**first.details, "fallback_error": second.body(request_id)}
    return first

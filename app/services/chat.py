"""Chats: a request goes to a provider, its answer comes back whole or as a stream of events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from app.errors import (
    InvalidUpstreamResponse,
    ModelNotFound,
    RateLimited,
    ServiceError,
    UpstreamBusy,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.services import openai_client
from app.services.answer import Answer
from app.services.call import Call, make_call
from app.services.ollama import OllamaService
from app.services.openai_client import OpenAIClients
from app.services.preferences import PreferenceStore
from app.services.providers import Provider, ProviderStore
from app.services.reader import Body, Register, SilentUpstream, read, read_all

if TYPE_CHECKING:
    import openai

Json = dict[str, Any]
Event = tuple[str, Json]

_FALLBACK_AFTER = (UpstreamUnavailable, UpstreamBusy, UpstreamTimeout, UpstreamIncomplete, RateLimited)


class ChatService:
    """Answers chats.

    :param ollama_for: makes the service for an Ollama provider
    :param used: is told the provider and the model of each answer
    """

    def __init__(
        self,
        providers: ProviderStore,
        preferences: PreferenceStore,
        clients: OpenAIClients,
        ollama_for: Callable[[Provider], OllamaService],
        used: Callable[[str, str], None],
    ) -> None:
        self._providers = providers
        self._preferences = preferences
        self._clients = clients
        self._ollama_for = ollama_for
        self._used = used

    def answer(self, body: Json, request_id: str) -> Generator[list[Event], None, None]:
        """Answer *body*, as :class:`~app.schemas.chat.ChatRequestSchema` loads it, in one piece.

        Yields an empty list in each half second until then, and `done` in the end.
        """
        return self._first_that_can(body, request_id, self._whole)

    def stream(self, body: Json, request_id: str) -> Generator[list[Event], None, None]:
        """Answer *body* as events, all that came at a time; an empty list in each silent half second.

        The first is `start`, the last is `done` or `error`. What fails before `start` is raised.
        """
        return self._first_that_can(body, request_id, self._events)

    def _first_that_can(
        self, body: Json, request_id: str, use: Callable[[Call], Generator[list[Event], None, None]]
    ) -> Generator[list[Event], None, None]:
        """Use the provider asked for; where it cannot answer now, the fallback of the settings."""
        first_error: ServiceError | None = None
        for call in self._calls(body, request_id):
            call.first_error = first_error
            try:
                yield from use(call)
            except ServiceError as exc:
                if first_error is None and not isinstance(exc, _FALLBACK_AFTER):
                    raise
                first_error = first_error or exc
            else:
                return
        raise first_error or AssertionError("there is always a first call")

    def _calls(self, body: Json, request_id: str) -> Iterator[Call]:
        """Yield the call to the provider asked for, then the one to the fallback, where there is one."""
        preferences = self._preferences.all()
        first = body.get("provider") or preferences["default_provider"]
        yield make_call(self._providers.get_enabled(first), body, preferences, request_id)
        second = self._providers.all().get(preferences["fallback_provider"])
        if second and second.enabled and second.id != first:
            yield make_call(second, {**body, "model": None}, preferences, request_id)

    def _whole(self, call: Call) -> Generator[list[Event], None, None]:
        answer = Answer(call.provider.name, call.provider.api_key)
        limit = self._preferences.timeouts.first_byte
        data = b""
        with (
            openai_client.translated(call.provider, call.model),
            contextlib.closing(read_all(lambda r: self._open(call, r), limit=limit)) as parts,
        ):
            for data in parts:
                if not data:
                    yield []
        answer.load(data)
        yield [("done", call.result(answer))]
        self._used(call.provider.id, call.model)

    def _events(self, call: Call) -> Generator[list[Event], None, None]:
        answer = Answer(call.provider.name, call.provider.api_key)
        call.request.update(stream=True, stream_options={"include_usage": True})
        chunks = self._read(call, answer)
        batch: list[Event] = []
        started = False
        try:
            try:
                with openai_client.translated(call.provider, call.model):
                    for data in chunks:
                        for delta in answer.feed(data):
                            batch.append(("delta", delta))  # kept when feed raises  # noqa: PERF401
                        if answer.done:
                            break
                        if answer.events and not started:
                            batch.insert(0, ("start", call.start()))
                            started = True
                        yield batch
                        batch = []
                    answer.end()
                last = ("done", call.result(answer))
            except ServiceError as exc:
                if not (started or batch):
                    raise
                last = ("error", exc.body(call.request_id))
            start = [] if started else [("start", call.start())]
            yield [*start, *batch, last]
            if last[0] == "done":
                self._used(call.provider.id, call.model)
            _let_end(chunks)
        finally:
            chunks.close()

    def _read(self, call: Call, answer: Answer) -> Generator[bytes, None, None]:
        """Yield the bytes of a stream, as long as events come in time: comments alone are no answer."""
        timeouts = self._preferences.timeouts
        deadline = time.monotonic() + timeouts.first_byte
        seen = 0
        chunks = read(
            lambda register: self._open(call, register),
            first_byte=timeouts.first_byte,
            idle=max(timeouts.idle, timeouts.first_byte),
        )
        try:
            for data in chunks:
                yield data
                if answer.events > seen:
                    seen, deadline = answer.events, time.monotonic() + timeouts.idle
                elif time.monotonic() > deadline:
                    raise SilentUpstream
        finally:
            chunks.close()

    def _open(self, call: Call, register: Register) -> Body:
        """Send *call*; where it names no model and the configured one is absent, with one that is there."""
        client = self._clients.get(call.provider, self._preferences.timeouts)
        if not call.model:
            self._choose_model(call, client)
        try:
            return call.open(client, register)
        except ModelNotFound as exc:
            if call.model_is_named or not call.provider.is_ollama:
                raise self._model_not_found(call, client) from exc
            self._choose_model(call, client)
            return call.open(client, register)

    def _choose_model(self, call: Call, client: openai.OpenAI) -> None:
        absent = call.model
        if call.provider.is_ollama:
            call.model = self._ollama_for(call.provider).first_chat_model()
        else:
            call.model = self._offered(call, client)[0]
        why = f"'{absent}' is not installed" if absent else "the settings name no model"
        call.notices.append(f"Answered by '{call.model}': the request names no model and {why}.")

    def _model_not_found(self, call: Call, client: openai.OpenAI) -> ServiceError:
        try:
            if call.provider.is_ollama:
                return self._ollama_for(call.provider).model_not_found(call.model)
            available = self._offered(call, client)
        except InvalidUpstreamResponse as exc:
            if not call.provider.is_ollama:  # no list either: it is the address that is wrong
                return exc
            available = []
        except ServiceError:
            available = []
        return ModelNotFound(
            f"{call.provider.name} does not have the model '{call.model}'.",
            hint=f"GET /api/providers/{call.provider.id}/models lists what it has.",
            details={"model": call.model, "available": available[:100]},
        )

    def _offered(self, call: Call, client: openai.OpenAI) -> list[str]:
        models = openai_client.list_models(client, call.provider, self._preferences.timeouts)
        names = [model["id"] for model in models["models"]]
        if not names:
            raise ModelNotFound(
                f"{call.provider.name} offers no model.",
                hint="Load one there, then ask again.",
                details={"available": []},
            )
        return names


def _let_end(chunks: Generator[bytes, None, None]) -> None:
    """Give the connection a moment to end by itself, so that the next request can use it again.

    The answer is complete: whatever happens now is of no interest.
    """
    with contextlib.suppress(Exception):
        next(chunks, None)

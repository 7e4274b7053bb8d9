"""One request to a provider's OpenAI API, passed on as it is, and its answer passed back as bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

from app.errors import ServiceError
from app.services.catalog.offers import Offers
from app.services.gateway.relayed import Passage
from app.services.gateway.stream_check import StreamCheck
from app.services.providers import openai_api as openai_client
from app.services.providers.circuits import Circuits
from app.services.providers.openai_api import OpenAIClients, ResponseBody
from app.services.providers.store import Provider, ProviderStore
from app.services.settings import SettingsStore
from app.services.usage.log import CallRecord
from app.upstream.failures import invalid_response
from app.upstream.hanging_up import Register
from app.upstream.json import parse_answer
from app.upstream.reading import let_end, read_all, read_events

Json = dict[str, Any]


class RelayService:
    """Passes requests on.

    :param used: is told the provider and the model of each answer
    :param record: is told once of each request that a provider could be asked, however it ended
    """

    def __init__(
        self,
        providers: ProviderStore,
        settings: SettingsStore,
        clients: OpenAIClients,
        offers: Offers,
        used: Callable[[str, str], None],
        record: Callable[[CallRecord], None],
        circuits: Circuits,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._clients = clients
        self._offers = offers
        self._used = used
        self._record = record
        self._circuits = circuits

    def send(self, passage: Passage) -> Generator[bytes, None, None]:
        """Yield the bytes of the answer, all that came at a time; ``b""`` in each silent half second.

        An answer that is not streamed comes in one piece. Closing the generator hangs up on the provider.

        :raises ServiceError: when it fails; for a stream, also after its first bytes
        """
        provider = self._providers.get_enabled(passage.provider_id)
        if passage.model:
            self._offers.of(provider).check_name(passage.model)
        self._circuits.check(provider)
        with self._recorded(passage):
            parts = self._stream(provider, passage) if passage.streamed else self._whole(provider, passage)
            try:
                with closing(parts):
                    yield from parts
            except ServiceError as exc:
                self._circuits.failed(provider, exc, passage.seconds)
                raise
            self._circuits.worked(provider)
            self._used(provider.id, passage.model)

    @contextmanager
    def _recorded(self, passage: Passage) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:
            passage.outcome = "client_left"
            raise
        except BaseException as exc:
            passage.outcome = exc.error_type if isinstance(exc, ServiceError) else ServiceError.error_type
            raise
        finally:
            self._record(passage.record())

    def _whole(self, provider: Provider, passage: Passage) -> Generator[bytes, None, None]:
        limit = self._settings.timeouts.first_byte
        data = b""
        with (
            openai_client.translated(provider, passage.model),
            closing(read_all(lambda r: self._open(provider, passage, r), limit=limit)) as parts,
        ):
            for data in parts:
                if not data:
                    yield b""
        answer = parse_answer(data, provider.name, provider.api_key)
        usage = answer.get("usage")
        passage.usage = usage if isinstance(usage, dict) else {}
        if passage.check:
            passage.check(provider, answer)
        yield data

    def _stream(self, provider: Provider, passage: Passage) -> Generator[bytes, None, None]:
        check = StreamCheck(provider.name, provider.api_key, passage.choices)
        try:
            timeouts = self._settings.timeouts
            with (
                openai_client.translated(provider, passage.model),
                closing(
                    read_events(
                        lambda register: self._open(provider, passage, register),
                        lambda: check.events,
                        first_byte=timeouts.first_byte,
                        idle=timeouts.idle,
                    )
                ) as chunks,
            ):
                for data in chunks:
                    block = check.feed(data) if data else b""
                    if check.events and passage.first_token is None:
                        passage.first_token = round(time.monotonic() - passage.started, 6)
                    yield block if check.events else b""  # comments alone are no answer
                    if check.error or check.done:
                        break
                if check.done:
                    let_end(chunks)
            if not (check.error or check.done):
                yield check.end()
        finally:
            passage.usage = check.usage
        if check.error:
            raise check.error

    def _open(self, provider: Provider, passage: Passage, register: Register) -> ResponseBody:
        """Send the request; in the reader's thread, so that nobody waits for it who has left."""
        client = self._clients.get(provider, self._settings.timeouts)
        offers = self._offers.of(provider)
        passage.model = passage.model or offers.default(passage.endpoint)
        try:
            with openai_client.translated(provider, passage.model):
                body = passage.open(client, register)
        except ServiceError as exc:
            if better := offers.explain(exc, passage.model, passage.endpoint):
                raise better from exc
            raise
        if passage.streamed and "text/event-stream" not in body.content_type:
            body.close()
            raise invalid_response(provider.name, "it is not an event stream")
        return body

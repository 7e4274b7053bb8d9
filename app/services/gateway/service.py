"""Pass requests on to the OpenAI API of a provider, and pass the bytes of its answers back."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from app.config import Timeouts
from app.errors import ServiceError
from app.schemas.openai_v1 import OpenAIAnswer, OpenAIRequest, OpenAIUsage
from app.services.catalog import Offers
from app.services.gateway.stream_check import StreamCheck, fault_of, usage_of
from app.services.ollama import check_name
from app.services.providers import Circuits, OpenAIClients, Provider, ProviderStore, ResponseBody, translated
from app.services.settings import SettingsStore
from app.services.usage import CallRecord
from app.upstream.failures import invalid_response
from app.upstream.json import count, parse_answer
from app.upstream.reading import let_end, read, read_all
from app.upstream.threaded import in_thread

EMBEDDINGS = "embeddings"


@dataclass
class RelayedRequest:
    """A request to pass on, and the values that the usage records about it.

    :param endpoint: the path below ``/v1/``, such as ``chat/completions``
    :param model: the provider's name of the model; empty for the provider's default model
    :param check: is called with a whole answer, and raises if the answer does not fit the request
    """

    endpoint: str
    provider_id: str
    model: str
    body: OpenAIRequest
    request_id: str
    check: Callable[[Provider, OpenAIAnswer], None] | None = None
    usage: OpenAIUsage = field(default_factory=OpenAIUsage)
    outcome: str = "ok"
    started: float = field(default_factory=time.monotonic)
    time_to_first_token: float | None = None

    @property
    def streamed(self) -> bool:
        """Whether the client asks for a stream."""
        return bool(self.body.get("stream")) and self.endpoint != EMBEDDINGS

    @property
    def choices(self) -> int:
        """The number of answers that the client asks for: `n` for each prompt."""
        number, prompts = self.body.get("n"), self.body.get("prompt")
        several = isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts)
        each = number if type(number) is int else 1  # isinstance() would accept true as an int
        return each * max(1, len(prompts)) if isinstance(prompts, list) and several else each

    @property
    def seconds(self) -> float:
        """How long the request has taken so far."""
        return round(time.monotonic() - self.started, 6)

    def sent_body(self) -> OpenAIRequest:
        """Return the body for the provider."""
        body: OpenAIRequest = {**self.body, "model": self.model}
        if self.endpoint == EMBEDDINGS:  # OpenAI's default, stated for servers that have none
            body.setdefault("encoding_format", "float")
        return body

    def record(self) -> CallRecord:
        """Return the record of the finished request for the usage."""
        return CallRecord(
            provider=self.provider_id,
            model=self.model,
            endpoint=self.endpoint,
            prompt_tokens=count(self.usage.get("prompt_tokens")),
            completion_tokens=count(self.usage.get("completion_tokens")),
            latency=self.seconds,
            time_to_first_token=self.time_to_first_token,
            outcome=self.outcome,
            streamed=self.streamed,
            request_id=self.request_id,
        )


class GatewayService:
    """Passes requests on.

    :param record: is called once for each request, however it ends; not for one that is refused beforehand,
        because of its provider, model name or an open circuit
    """

    def __init__(
        self,
        providers: ProviderStore,
        settings: SettingsStore,
        clients: OpenAIClients,
        offers: Offers,
        record: Callable[[CallRecord], None],
        circuits: Circuits,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._clients = clients
        self._offers = offers
        self._record = record
        self._circuits = circuits

    def ask(self, endpoint: str, body: OpenAIRequest, request_id: str) -> Generator[bytes, None, None]:
        """Pass *body* on to the provider that its `model` names; yield the same as :meth:`send`.

        :param endpoint: ``chat/completions``, ``completions`` or ``embeddings``
        """
        name, default = body.get("model") or "", self._settings.all()["default_provider"]
        provider_id, model = split_name(name, self._providers.all(), default)
        return self.send(RelayedRequest(endpoint, provider_id, model, body, request_id))

    def send(self, request: RelayedRequest) -> Generator[bytes, None, None]:
        """Yield the bytes of the answer that came together, and ``b""`` in each silent tick.

        An answer that is not streamed comes in one piece. Closing the generator closes the provider's
        connection.

        :raises ServiceError: when the request fails; a stream can fail after its first bytes
        """
        provider = self._providers.get_enabled(request.provider_id)
        if request.model and provider.is_ollama:
            check_name(request.model)
        self._circuits.check(provider)
        with self._recorded(provider, request):
            answer = self._stream if request.streamed else self._whole
            yield from answer(provider, request, self._settings.timeouts)

    @contextmanager
    def _recorded(self, provider: Provider, request: RelayedRequest) -> Iterator[None]:
        """Record *request*, which runs in this block, and tell the circuits how it ends."""
        try:
            yield
            self._circuits.worked(provider)
        except GeneratorExit:
            request.outcome = "client_left"
            raise
        except ServiceError as exc:
            request.outcome = exc.error_type
            self._circuits.failed(provider, exc, request.seconds)
            raise
        except BaseException:
            request.outcome = ServiceError.error_type
            raise
        finally:
            self._record(request.record())

    def _whole(
        self, provider: Provider, request: RelayedRequest, timeouts: Timeouts
    ) -> Generator[bytes, None, None]:
        opening = self._open(provider, request, timeouts)
        data = b""
        with translated(provider), closing(read_all(opening, limit=timeouts.first_byte)) as parts:
            for data in parts:
                if not data:
                    yield b""
        answer = cast("OpenAIAnswer", parse_answer(data, provider.name, provider.api_key))
        request.usage = usage_of(answer)
        if fault := fault_of(request.endpoint, data, answer):
            raise invalid_response(provider.name, fault)
        if request.check:
            request.check(provider, answer)
        yield data

    def _stream(
        self, provider: Provider, request: RelayedRequest, timeouts: Timeouts
    ) -> Generator[bytes, None, None]:
        check = StreamCheck(provider.name, provider.api_key, request.choices)
        chunks = read(
            self._open(provider, request, timeouts),
            first_byte=timeouts.first_byte,
            idle=timeouts.idle,
            progress=lambda: check.events,
        )
        try:
            with translated(provider), closing(chunks):
                for data in chunks:
                    block = check.feed(data) if data else b""
                    if check.events and request.time_to_first_token is None:
                        request.time_to_first_token = request.seconds
                    yield block if check.events else b""  # comments before the first event are not an answer
                    if check.error or check.done:
                        break
                if check.done:
                    let_end(chunks)
            if not (check.error or check.done):
                yield check.end()
        finally:
            request.usage = check.usage
        if check.error:
            raise check.error

    def _open(
        self, provider: Provider, request: RelayedRequest, timeouts: Timeouts
    ) -> Generator[bytes, None, ResponseBody]:
        """Send *request* and return its open answer."""
        offers, endpoint = self._offers, request.endpoint
        if not request.model:
            request.model = yield from in_thread(partial(offers.of(provider).default, endpoint))
        try:
            body = yield from self._clients.open(provider, timeouts, f"/{endpoint}", request.sent_body())
        except ServiceError as exc:
            explain = offers.of(provider).explain
            if better := (yield from in_thread(partial(explain, exc, request.model, endpoint))):
                raise better from exc
            raise
        if request.streamed and "text/event-stream" not in body.content_type:
            body.close()
            raise invalid_response(provider.name, "it is not an event stream")
        return body


def split_name(name: str, ids: Container[str], default: str) -> tuple[str, str]:
    """Split the name of a model in this API into the provider's id and the provider's name of the model.

    Names of models may contain slashes: the part before the first slash counts only if it is an id.

    :param ids: the ids of all providers
    :param default: the id of the default provider, for names without a provider's id
    """
    prefix, slash, rest = name.partition("/")
    return (prefix, rest) if slash and prefix in ids else (default, name)

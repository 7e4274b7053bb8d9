"""Send requests to the OpenAI-compatible APIs of providers, and turn their failures into our errors."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from marshmallow import ValidationError

from app.config import MAX_ANSWER, Timeouts
from app.errors import ModelNotFound, NotFound, ServiceError
from app.schemas.providers import ProviderModels, UpstreamProviderModelsSchema
from app.services.providers.openai_client import make_client
from app.services.providers.store import Provider, start_hint
from app.upstream.failures import (
    clean,
    cut_off,
    error_message,
    invalid_response,
    is_lone_surrogate,
    lone_surrogate,
    rejection,
    timed_out,
    unfit,
    unreachable,
)
from app.upstream.json import parse
from app.upstream.limits import LINE_LIMIT, UnfitAnswer, bounded, check_unpacked
from app.upstream.readiness import Readiness
from app.upstream.reading import SilentUpstream, read_all
from app.upstream.threaded import in_thread

if TYPE_CHECKING:
    import httpx2
    import openai

    from app.upstream.transport import Answer

_ERROR_LIMIT = 1_000_000  # bytes that are read of an error's body
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_LONGEST_WAIT = 86400.0  # seconds; a provider may send any number as Retry-After


_Request = tuple[str, Any, list[tuple[bytes, bytes]], dict[str, Any]]


@dataclass
class _Client:
    """A client, and the number of its answers that are requested or open.

    :ivar requests: the first request to each path: its method, address, headers and extensions
    """

    provider: Provider
    timeouts: Timeouts
    openai: openai.OpenAI
    connections: httpx2.Client
    requests: dict[str, _Request] = field(default_factory=dict)
    answers: int = 0

    def suits(self, provider: Provider, timeouts: Timeouts) -> bool:
        """Tell whether the client has the settings of *provider* and these timeouts."""
        mine = (self.provider.openai_url, self.provider.api_key, self.timeouts)
        return mine == (provider.openai_url, provider.api_key, timeouts)


@dataclass(frozen=True)
class ResponseBody:
    """The open answer of a provider; see :class:`app.upstream.reading.Body`."""

    content_type: str
    receive: Callable[[], bytes | None]
    close: Callable[[], None]


class OpenAIClients:
    """The clients of the providers. Each client is kept for its connections while the settings are the same.

    When a provider's settings change, its old client is closed after the last of its answers is closed.
    Importing ``openai`` takes almost a second, so the functions here import it when they first need it.

    :param max_answer: the most bytes of an answer
    :param readiness: whether the server that this program starts can be asked
    """

    def __init__(self, max_answer: int = MAX_ANSWER, readiness: Readiness | None = None) -> None:
        self._max_answer = max_answer
        self._readiness = readiness or Readiness()
        self._clients: dict[str, _Client] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Import ``openai`` now, so that the first chat does not wait for it."""
        import openai  # noqa: F401

    def open(
        self, provider: Provider, timeouts: Timeouts, path: str, body: Mapping[str, object] | None
    ) -> Generator[bytes, None, ResponseBody]:
        """Send a request and return its open answer. Open and read it in a :func:`translated` block.

        :param path: the path below ``/v1``, beginning with a slash
        :param body: the JSON body to post; None to send a ``GET``
        :raises ServiceError: when the provider refuses the request
        """
        if not self._readiness.is_ready.is_set():
            yield from in_thread(partial(self._readiness.wait, provider.native_url, timeouts.first_byte))
        with ExitStack() as closing:
            client = self._take(provider, timeouts)
            closing.callback(self._give_back, client)
            answer = _send(client, path, body)
            closing.callback(answer.close)
            yield from answer.begin()
            if answer.status >= 300:
                said = yield from _beginning(answer)
                raise _rejection(provider, str((body or {}).get("model", "")), answer, said)
            check_unpacked(answer.headers.get("content-encoding", ""))
            content_type = answer.headers.get("content-type", "")
            receive = bounded(answer.receive, self._max_answer)
            return ResponseBody(content_type, receive, closing.pop_all().close)

    def list_models(
        self, provider: Provider, timeouts: Timeouts, *, limit: float | None = None
    ) -> ProviderModels:
        """Return the models that *provider* offers (``GET /models``).

        :param limit: seconds that the whole answer may take; None for ``list`` of *timeouts*
        :raises ServiceError: when the provider does not answer with a list
        """
        with translated(provider):
            *_, data = read_all(
                self.open(provider, timeouts, "/models", None),
                limit=timeouts.list if limit is None else limit,
                most=LINE_LIMIT,
            )
        try:
            loaded: ProviderModels = UpstreamProviderModelsSchema().load(parse(data))
        except (ValueError, ValidationError) as exc:
            raise invalid_response(provider.name, "it is no list of models") from exc
        return loaded

    def close(self) -> None:
        """Close all clients.

        The connections of open answers are closed with their answers.
        """
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.openai.close()

    def _take(self, provider: Provider, timeouts: Timeouts) -> _Client:
        """Return the client of *provider* for one answer, and count the answer."""
        with self._lock:
            kept = self._clients.get(provider.id)
            if kept is None or not kept.suits(provider, timeouts):
                replaced, kept = kept, _Client(provider, timeouts, *make_client(provider, timeouts))
                self._clients[provider.id] = kept
                if replaced is not None and not replaced.answers:
                    replaced.openai.close()
            kept.answers += 1
            return kept

    def _give_back(self, client: _Client) -> None:
        """Count an answer of *client* as closed; close a replaced client after its last answer."""
        with self._lock:
            client.answers -= 1
            is_over = not client.answers and self._clients.get(client.provider.id) is not client
        if is_over:
            client.openai.close()


def _send(client: _Client, path: str, body: Mapping[str, object] | None) -> Answer:
    """Return the answer to a request, which is sent when the answer begins.

    The client makes the first request to a path. Later ones differ from it only in their body, so they are
    copies: to make a request takes the client longer than all the rest of a short chat.
    """
    import httpx2

    if path in client.requests:
        method, url, headers, extensions = client.requests[path]
        content = None if body is None else _encoded(body)
        request = httpx2.Request(method, url, headers=headers, content=content, extensions=extensions)
        response = client.connections.send(request, stream=True)
    else:
        response = _first(client.openai, path, body)
        request = response.request
        headers = [header for header in request.headers.raw if header[0].lower() != b"content-length"]
        client.requests[path] = (request.method, request.url, headers, request.extensions)
    answer: Answer = response.extensions["answer"]
    return answer


def _first(client: openai.OpenAI, path: str, body: Mapping[str, object] | None) -> httpx2.Response:
    """Let *client* make a request.

    This calls the client's ``post`` and ``get``, which return the answer unread. The client's methods for
    each endpoint would search the whole body for types to convert.
    """
    import httpx2
    import openai

    unread: Any = {"cast_to": httpx2.Response, "stream": True, "stream_cls": openai.Stream[object]}
    response: httpx2.Response = (
        client.get(path, **unread) if body is None else client.post(path, content=_encoded(body), **unread)
    )
    return response


def _encoded(body: Mapping[str, object]) -> bytes:
    return _JSON.encode(body).encode()


def _beginning(answer: Answer) -> Generator[bytes, None, bytes]:
    """Return the first :data:`_ERROR_LIMIT` bytes of the body; yield ``b""`` until then."""
    data = b""
    while len(data) < _ERROR_LIMIT and (part := answer.receive()) is not None:
        data += part
        yield b""
    return data[:_ERROR_LIMIT]


@contextmanager
def translated(provider: Provider) -> Iterator[None]:
    """Turn the exceptions of the openai client and its connection into our errors."""
    import httpx2
    import openai

    try:
        yield
    except ServiceError:
        raise
    except UnfitAnswer as exc:
        raise unfit(provider.name, exc) from exc
    except (SilentUpstream, httpx2.TimeoutException) as exc:
        connected = not isinstance(exc, httpx2.ConnectTimeout)
        raise timed_out(provider.name, provider.openai_url, connected=connected) from exc
    except (httpx2.ConnectError, httpx2.ProxyError, httpx2.LocalProtocolError) as exc:
        raise unreachable(provider.name, provider.openai_url, exc, start_hint(provider)) from exc
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise cut_off(provider.name) from exc
    except (httpx2.InvalidURL, UnicodeError) as exc:
        if is_lone_surrogate(exc):
            raise lone_surrogate() from exc
        raise unreachable(provider.name, provider.openai_url, exc, start_hint(provider)) from exc
    except openai.OpenAIError as exc:
        raise invalid_response(provider.name, "it cannot be read") from exc


def _rejection(provider: Provider, model: str, answer: Answer, body: bytes) -> ServiceError:
    """Return our error for an answer whose status is no success.

    :param model: the model that the request names; empty when it names none
    """
    try:
        found = parse(body.decode(errors="replace"))
    except ValueError:
        found = None
    said = error_message(found) if isinstance(found, dict) else ""
    error = rejection(
        provider.name,
        answer.status,
        clean(said, provider.api_key),
        details={"model": model} if model else None,
        retry_after=_retry_after(answer.headers),
    )
    if not isinstance(error, NotFound):
        return error
    # A 404 with a JSON error comes from the API and means the model; any other means a wrong base_url.
    if model and isinstance(found, dict):
        return ModelNotFound(f"{provider.name} does not have the model '{model}'.", details=error.details)
    return invalid_response(provider.name, "there is no chat API at its base_url")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in ``Retry-After``, at most :data:`_LONGEST_WAIT`; None for a date or no header."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return min(seconds, _LONGEST_WAIT) if math.isfinite(seconds) else None

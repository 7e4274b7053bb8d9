"""Send requests to the OpenAI-compatible APIs of providers, and turn their failures into our errors."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from marshmallow import ValidationError

from app.config import MAX_ANSWER, Timeouts
from app.errors import ModelNotFound, NotFound, ServiceError
from app.schemas.providers import ProviderModels, UpstreamProviderModelsSchema
from app.services.providers.openai_client import make_client
from app.services.providers.store import Provider, start_hint
from app.upstream.failures import (
    cause_of,
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
    was_cut,
)
from app.upstream.json import parse
from app.upstream.limits import LINE_LIMIT, UnfitAnswer, bounded, check_unpacked
from app.upstream.readiness import Readiness
from app.upstream.reading import Register, SilentUpstream, announcing, read_all
from app.upstream.threaded import ThreadedBody

if TYPE_CHECKING:
    import httpx2
    import openai

    from app.upstream.connection import DirectBody

_LONGEST_WAIT = 86400.0  # seconds; a provider may send any number as Retry-After


@dataclass
class _Client:
    """A client, and the number of its answers that are requested or open."""

    provider: Provider
    timeouts: Timeouts
    openai: openai.OpenAI
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

    def open_response(
        self,
        provider: Provider,
        timeouts: Timeouts,
        path: str,
        body: Mapping[str, object] | None,
        register: Register,
    ) -> ResponseBody:
        """Send a request and return its open answer, which the caller closes.

        This calls the client's ``post`` and ``get``, which return the answer unread. The client's methods for
        each endpoint would search the whole body for types to convert, which takes longer than the rest of
        the request.

        :param path: the path below ``/v1``, beginning with a slash
        :param body: the JSON body to post; None to send a ``GET``
        :param register: is called with the connection before the provider answers
        :raises ServiceError: when the provider does not answer, or refuses the request
        """
        model = str((body or {}).get("model", ""))
        if not self._readiness.is_ready.is_set():
            self._readiness.wait(provider.native_url, timeouts.first_byte)
        with ExitStack() as closing, translated(provider, model):
            client = self._take(provider, timeouts)
            closing.callback(self._give_back, client)
            with announcing(register):
                response = _send(client.openai, path, body)
            closing.callback(response.close)
            check_unpacked(response.headers.get("content-encoding", ""))
            return _body(response, self._max_answer, closing.pop_all().close)

    def list_models(
        self, provider: Provider, timeouts: Timeouts, *, limit: float | None = None
    ) -> ProviderModels:
        """Return the models that *provider* offers (``GET /models``).

        :param limit: seconds that the whole answer may take; None for ``list`` of *timeouts*
        :raises ServiceError: when the provider does not answer with a list
        """
        with translated(provider, ""):
            *_, data = read_all(
                lambda register: self.open_response(provider, timeouts, "/models", None, register),
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
                replaced, kept = kept, _Client(provider, timeouts, make_client(provider, timeouts))
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


def _send(client: openai.OpenAI, path: str, body: Mapping[str, object] | None) -> httpx2.Response:
    """Send a request and return the open answer without parsing it."""
    import httpx2
    import openai

    unread: Any = {"cast_to": httpx2.Response, "stream": True, "stream_cls": openai.Stream[object]}
    response: httpx2.Response = (
        client.get(path, **unread) if body is None else client.post(path, body=body, **unread)
    )
    return response


def _body(response: httpx2.Response, most: int, close: Callable[[], None]) -> ResponseBody:
    """Return *response* as a body that can be polled, of at most *most* bytes."""
    content_type: str = response.headers.get("content-type", "")
    direct: DirectBody | None = response.extensions.get("direct_body")
    if direct is not None:
        return ResponseBody(content_type, bounded(direct.receive, most), close)
    # The request went through a proxy, on httpx2's own transport, which cannot be polled: a thread reads it.
    stream = response.extensions.get("network_stream")
    # Not iter_bytes(), which would release the connection at the end by itself.
    chunks = cast("httpx2.SyncByteStream", response.stream)
    threaded = ThreadedBody(chunks, stream and stream.get_extra_info("socket"), close)
    return ResponseBody(content_type, bounded(threaded.receive, most), threaded.close)


@contextmanager
def translated(provider: Provider, model: str) -> Iterator[None]:
    """Turn the exceptions of the openai client and its connection into our errors.

    :param model: the model that the request names; empty when it names none
    """
    import httpx2
    import openai

    try:
        yield
    except ServiceError:
        raise
    except UnfitAnswer as exc:
        raise unfit(provider.name, exc) from exc
    except (SilentUpstream, openai.APITimeoutError, httpx2.TimeoutException) as exc:
        connected = not isinstance(exc.__cause__, httpx2.ConnectTimeout)
        raise timed_out(provider.name, provider.openai_url, connected=connected) from exc
    except openai.APIConnectionError as exc:
        raise _lost(provider, exc) from exc
    except openai.APIStatusError as exc:
        raise _rejection(provider, model, exc) from exc
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise cut_off(provider.name) from exc
    except (httpx2.InvalidURL, UnicodeError) as exc:
        if is_lone_surrogate(exc):
            raise lone_surrogate() from exc
        raise unreachable(provider.name, provider.openai_url, exc, start_hint(provider)) from exc
    except openai.OpenAIError as exc:
        raise invalid_response(provider.name, "it cannot be read") from exc


def _lost(provider: Provider, exc: openai.APIConnectionError) -> ServiceError:
    """Return our error for a connection that was not made, or that brought no answer."""
    if cause := cause_of(exc, UnfitAnswer):
        return unfit(provider.name, cause)
    if was_cut(exc):
        return cut_off(provider.name)
    return unreachable(provider.name, provider.openai_url, exc, start_hint(provider))


def _rejection(provider: Provider, model: str, exc: openai.APIStatusError) -> ServiceError:
    """Return our error for an answer whose status is no success."""
    said = error_message(exc.body) if isinstance(exc.body, dict) else ""
    error = rejection(
        provider.name,
        exc.status_code,
        clean(said, provider.api_key),
        details={"model": model} if model else None,
        retry_after=_retry_after(exc.response.headers),
    )
    if not isinstance(error, NotFound):
        return error
    # A 404 with a JSON error comes from the API and means the model; any other means a wrong base_url.
    if model and isinstance(exc.body, dict):
        return ModelNotFound(f"{provider.name} does not have the model '{model}'.", details=error.details)
    return invalid_response(provider.name, "there is no chat API at its base_url")


def _retry_after(headers: Any) -> float | None:
    """Return the seconds in ``Retry-After``, at most :data:`_LONGEST_WAIT`; None for a date or no header."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return min(seconds, _LONGEST_WAIT) if math.isfinite(seconds) else None

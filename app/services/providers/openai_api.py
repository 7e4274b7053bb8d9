"""The official openai client, one per provider, and the place where its failures become ours."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from marshmallow import ValidationError

from app.config import Timeouts
from app.errors import ModelNotFound, NotFound, ServiceError
from app.schemas.providers import UpstreamProviderModelsSchema
from app.services.providers.store import Provider
from app.upstream.failures import (
    clean,
    cut_off,
    error_message,
    half_a_character,
    invalid_response,
    is_of_the_text,
    reject,
    timed_out,
    unreachable,
    was_cut,
)
from app.upstream.reading import Body, Register, SilentUpstream, TooMuch, announcing, read_all
from app.upstream.threaded_body import ThreadedBody

if TYPE_CHECKING:
    import httpx2
    import openai

    from app.upstream.transport import DirectBody

Json = dict[str, Any]

_LONGEST_WAIT = 86400.0  # seconds; whoever says more, says nothing
_ERROR_LIMIT = 1_000_000  # bytes

# What the client would tell each provider of this machine. It is none of their business, and to put it into
# each request takes a tenth of a chat's time.
_NOT_TOLD = [
    f"X-Stainless-{name}"
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
]


class OpenAIClients:
    """The clients, each made once for the settings it has and kept for its connections.

    ``openai`` takes most of a second to import, so that happens when it is first needed.
    """

    def __init__(self) -> None:
        self._clients: dict[str, tuple[Provider, Timeouts, openai.OpenAI]] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Import what the first chat needs."""
        import openai  # noqa: F401

    def get(self, provider: Provider, timeouts: Timeouts) -> openai.OpenAI:
        """Return the client of *provider*."""
        with self._lock:
            kept = self._clients.get(provider.id)
            if kept and _same(kept[0], provider) and kept[1] == timeouts:
                return kept[2]
            client = _make_client(provider, timeouts)
            self._clients[provider.id] = (provider, timeouts, client)
            return client

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for _, _, client in self._clients.values():
                client.close()
            self._clients.clear()


class ResponseBody:
    """An open answer of the openai client; see :class:`app.upstream.reading.Body`.

    The client's ``post`` and ``get`` take a body as it is; its methods for each endpoint would look through
    all of it for types to convert, which takes longer than all the rest of a request.

    :param body: what is posted; None to get
    :param register: told the connection as soon as there is one, before the upstream answers
    """

    def __init__(self, client: openai.OpenAI, path: str, body: Json | None, register: Register) -> None:
        import httpx2
        import openai

        as_it_is: Any = {
            "cast_to": httpx2.Response,
            "stream": True,
            "stream_cls": openai.Stream[object],
        }
        with announcing(register):
            response = (
                client.get(path, **as_it_is) if body is None else client.post(path, body=body, **as_it_is)
            )
        self._client = client  # its connections are closed with it, so it stays as long as they are used
        self.content_type: str = response.headers.get("content-type", "")
        direct: DirectBody | None = response.extensions.get("direct_body")
        self._body: Body = direct or _threaded(response)

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end."""
        return self._body.receive()

    def close(self) -> None:
        """Give the connection back, or close it."""
        self._body.close()


def _threaded(response: httpx2.Response) -> ThreadedBody:
    """Return the body of an answer that comes through a proxy."""
    stream = response.extensions.get("network_stream")
    # Not iter_bytes(), which gives the connection back at the end by itself.
    return ThreadedBody(response.stream, stream and stream.get_extra_info("socket"), response.close)  # type: ignore[arg-type]  # a client that is not async


@contextmanager
def translated(provider: Provider, model: str) -> Iterator[None]:
    """Turn what openai and the connection below it raise into our errors."""
    import httpx2
    import openai

    try:
        yield
    except ServiceError:
        raise
    except (SilentUpstream, openai.APITimeoutError, httpx2.TimeoutException) as exc:
        connected = not isinstance(exc.__cause__, httpx2.ConnectTimeout)
        raise timed_out(provider.name, provider.openai_url, connected=connected) from exc
    except openai.APIConnectionError as exc:
        if was_cut(exc):
            raise cut_off(provider.name) from exc
        raise unreachable(provider.name, provider.openai_url, exc) from exc
    except openai.APIStatusError as exc:
        _reject(provider, model, exc)
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise cut_off(provider.name) from exc
    except (httpx2.InvalidURL, UnicodeError) as exc:
        if is_of_the_text(exc):
            raise half_a_character() from exc
        raise unreachable(provider.name, provider.openai_url, exc) from exc
    except (TooMuch, openai.OpenAIError) as exc:
        raise invalid_response(provider.name, "it cannot be read") from exc


def list_models(client: openai.OpenAI, provider: Provider, timeouts: Timeouts) -> Json:
    """Return the models that *provider* offers (``GET /models``).

    The list is as :class:`~app.schemas.providers.UpstreamProviderModelsSchema` loads it.
    """
    with translated(provider, ""):
        *_, data = read_all(
            lambda register: ResponseBody(client, "/models", None, register), limit=timeouts.list
        )
    try:
        loaded: Json = UpstreamProviderModelsSchema().load(json.loads(data))
    except (ValueError, RecursionError, ValidationError) as exc:
        raise invalid_response(provider.name, "it is no list of models") from exc
    return loaded


def _reject(provider: Provider, model: str, exc: openai.APIStatusError) -> None:
    message = clean(error_message(exc.body) if isinstance(exc.body, dict) else "", provider.api_key)
    try:
        reject(
            provider.name,
            exc.status_code,
            message,
            model=model,
            retry_after=_retry_after(exc.response.headers),
        )
    except NotFound as missing:
        if model and isinstance(exc.body, dict):
            raise ModelNotFound(
                f"{provider.name} does not have the model '{model}'.", details=missing.details
            ) from exc
        raise invalid_response(provider.name, "there is no chat API at its base_url") from exc
    except ServiceError as error:
        raise error from exc


def _retry_after(headers: Any) -> float | None:
    """Return the seconds of a ``Retry-After``; a date is left out."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return min(seconds, _LONGEST_WAIT) if math.isfinite(seconds) else None


def _same(one: Provider, other: Provider) -> bool:
    return (one.openai_url, one.api_key) == (other.openai_url, other.api_key)


def _make_client(provider: Provider, timeouts: Timeouts) -> openai.OpenAI:
    import openai

    not_told = cast("str", openai.Omit())  # its way to leave one out, which it does not declare
    timeout = openai.Timeout(max(timeouts.first_byte, timeouts.idle), connect=timeouts.connect)
    connections = openai.DefaultHttpxClient(
        timeout=timeout,
        follow_redirects=False,  # a provider must not send the conversation elsewhere
        event_hooks={"response": [_bound_error]},
        **_transport(provider.openai_url),
    )
    client = openai.OpenAI(
        base_url=provider.openai_url,
        api_key=provider.api_key or "none",  # it insists on one, also for servers that want none
        max_retries=0,  # a chat that may have begun is not sent again
        timeout=timeout,
        default_headers={"Accept-Encoding": "identity", **dict.fromkeys(_NOT_TOLD, not_told)},
        http_client=connections,
    )
    weakref.finalize(client, connections.close)
    return client


def _bound_error(response: httpx2.Response) -> None:
    """Let the body of an error end where no error goes on: the client reads all of it."""
    import httpx2

    if response.status_code < 400:
        return
    whole = cast("httpx2.SyncByteStream", response.stream)

    class Bounded(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            left = _ERROR_LIMIT
            for part in whole:
                yield part[:left]
                left -= len(part)
                if left <= 0:
                    return

        def close(self) -> None:
            whole.close()

    response.stream = Bounded()


def _transport(url: str) -> Json:
    """Return how to reach *url*: directly, unless it is https and the environment names a proxy for it."""
    import httpx2

    from app.upstream.transport import DirectTransport

    parts = urlsplit(url)
    if parts.scheme == "http":
        return {"transport": DirectTransport(), "trust_env": False}
    proxies = getproxies()
    if (proxies.get("https") or proxies.get("all")) and not proxy_bypass(parts.netloc.rpartition("@")[2]):
        return {}
    tls = httpx2.create_ssl_context()
    tls.set_alpn_protocols(["http/1.1"])
    return {"transport": DirectTransport(tls)}

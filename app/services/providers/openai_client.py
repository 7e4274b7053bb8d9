"""Make an official openai client with the settings of a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from app.config import Timeouts, is_loopback
from app.services.providers.store import Provider

if TYPE_CHECKING:
    import httpx2
    import openai

# The client sends these headers to describe this machine. No provider needs them, and adding them to each
# request takes a tenth of a chat's time.
_LEFT_OUT = [
    f"X-Stainless-{name}"
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
]


class _Transport(TypedDict, total=False):
    transport: httpx2.BaseTransport
    trust_env: bool


def make_client(provider: Provider, timeouts: Timeouts) -> openai.OpenAI:
    """Return a new client for *provider*."""
    import openai

    from app.upstream.transport import bound_error

    left_out = cast("str", openai.Omit())  # the client's types allow only str here
    timeout = openai.Timeout(max(timeouts.first_byte, timeouts.idle), connect=timeouts.connect)
    connections = openai.DefaultHttpxClient(
        timeout=timeout,
        follow_redirects=False,  # a provider must not redirect the conversation to another server
        event_hooks={"response": [bound_error]},
        **_transport(provider.openai_url),
    )
    return openai.OpenAI(
        base_url=provider.openai_url,
        api_key=provider.api_key or "none",  # the client requires a key, even for a server that needs none
        max_retries=0,  # the provider may have begun to answer: a chat must not be sent twice
        timeout=timeout,
        default_headers={"Accept-Encoding": "identity", **dict.fromkeys(_LEFT_OUT, left_out)},
        http_client=connections,
    )


def _transport(url: str) -> _Transport:
    """Return the transport arguments of an httpx2 client for *url*.

    The client connects directly, unless *url* is https and the environment names a proxy for it.
    """
    import httpx2

    from app.upstream.transport import DirectTransport

    parts = urlsplit(url)
    if parts.scheme == "http":
        return {"transport": DirectTransport(), "trust_env": False}
    proxies = {} if is_loopback(parts.hostname or "") else getproxies()
    if (proxies.get("https") or proxies.get("all")) and not proxy_bypass(parts.netloc.rpartition("@")[2]):
        return {}
    tls = httpx2.create_ssl_context()
    tls.set_alpn_protocols(["http/1.1"])
    return {"transport": DirectTransport(tls)}

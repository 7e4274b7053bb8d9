"""Make an official openai client with the settings of a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from app.config import Timeouts, is_loopback
from app.services.providers.store import Provider

if TYPE_CHECKING:
    import httpx2
    import openai

# The client sends these headers to describe this machine, and no provider needs them.
_LEFT_OUT = [
    f"X-Stainless-{name}"
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
]


def make_client(provider: Provider, timeouts: Timeouts) -> tuple[openai.OpenAI, httpx2.Client]:
    """Return a new client for *provider*, and the HTTP client through which it sends."""
    import openai

    left_out = cast("str", openai.Omit())  # the client's types allow only str here
    timeout = openai.Timeout(max(timeouts.first_byte, timeouts.idle), connect=timeouts.connect)
    connections = openai.DefaultHttpxClient(
        timeout=timeout,
        follow_redirects=False,  # a provider must not redirect the conversation to another server
        trust_env=False,
        transport=_transport(provider.openai_url),
    )
    client = openai.OpenAI(
        base_url=provider.openai_url,
        api_key=provider.api_key or "none",  # the client requires a key, even for a server that needs none
        max_retries=0,  # the provider may have begun to answer: a chat must not be sent twice
        timeout=timeout,
        default_headers={"Accept-Encoding": "identity", **dict.fromkeys(_LEFT_OUT, left_out)},
        http_client=connections,
    )
    return client, connections


def _transport(url: str) -> httpx2.BaseTransport:
    """Return the transport for *url*: direct, unless *url* is https and the environment names a proxy."""
    import httpx2

    from app.upstream.proxy import ProxyTransport
    from app.upstream.transport import DirectTransport

    parts = urlsplit(url)
    if parts.scheme == "http":
        return DirectTransport()
    proxies = {} if is_loopback(parts.hostname or "") else getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if proxy and not proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ProxyTransport(proxy)
    tls = httpx2.create_ssl_context()
    tls.set_alpn_protocols(["http/1.1"])
    return DirectTransport(tls)

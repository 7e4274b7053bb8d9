"""An HTTP transport through a proxy, for the openai client."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import cast

import httpx2

from app.upstream.reading import Chunks, Ticks
from app.upstream.threaded import ThreadedBody, announce


class ProxyTransport(httpx2.BaseTransport):
    """Sends requests through a proxy, with httpx2's own transport, which cannot be polled: threads read.

    :param proxy: the address of the proxy
    """

    def __init__(self, proxy: str) -> None:
        address = proxy if "://" in proxy else f"http://{proxy}"
        self._transport = httpx2.HTTPTransport(proxy=httpx2.Proxy(address))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return an answer in whose extension `answer` is the real one, a :class:`ProxiedAnswer`."""
        return httpx2.Response(200, extensions={"answer": ProxiedAnswer(request, self._transport)})

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()


class ProxiedAnswer:
    """The :class:`~app.upstream.transport.Answer` to *request* over *transport*, which a thread reads."""

    def __init__(self, request: httpx2.Request, transport: httpx2.BaseTransport) -> None:
        self._request = request
        self._transport = transport
        self._body: ThreadedBody | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def begin(self) -> Ticks:
        """Send the request, and read the head of the answer."""
        self._body = ThreadedBody(self._exchange)
        yield from self._body.begin()

    def receive(self) -> bytes | None:
        """Return the bytes of the body that came."""
        if self._body is None:
            raise AssertionError("the request was not sent")
        return self._body.receive()

    def close(self) -> None:
        """Give the connection back, or close it."""
        if self._body is not None:
            self._body.close()

    def _exchange(self) -> Chunks:
        """Send the request; yield ``b""`` when the head is read, and then the parts of the body."""
        with closing(self._transport.handle_request(self._request)) as response:
            stream = response.extensions.get("network_stream")
            announce(stream and stream.get_extra_info("socket"))
            self.headers = {name.lower(): value for name, value in response.headers.items()}
            self.status = response.status_code
            yield b""
            yield from cast("httpx2.SyncByteStream", response.stream)
            announce(None)

"""The session of the library requests for Ollama and registries, its answers and its errors."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError

from app.addresses import dialled
from app.config import MAX_ANSWER, is_loopback
from app.errors import ServiceError, UpstreamError
from app.upstream.failures import (
    cause_of,
    cut_off,
    invalid_response,
    is_lone_surrogate,
    lone_surrogate,
    timed_out,
    unfit,
    unreachable,
    was_cut,
)
from app.upstream.limits import UnfitAnswer, bounded, check_unpacked
from app.upstream.reading import SilentUpstream
from app.upstream.threaded import announce

_READ = 65536  # bytes


class _Announced:
    """Announces a connection after its request is sent, before the answer comes."""

    _dns_host: str

    def _new_conn(self) -> socket.socket:
        host, self._dns_host = self._dns_host, dialled(self._dns_host)
        try:
            made: socket.socket = super()._new_conn()  # type: ignore[misc]  # of the class beside
        finally:
            self._dns_host = host
        return made

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)  # type: ignore[misc]  # of the connection that it is mixed into
        connection: socket.socket | None = getattr(self, "sock", None)
        if connection is not None:
            announce(connection)


class _Connection(_Announced, HTTPConnection):
    pass


class _SecureConnection(_Announced, HTTPSConnection):
    pass


class _Freed:
    """Announces that a connection is free, before another request can take it."""

    def _put_conn(self, connection: Any) -> None:
        announce(None)
        super()._put_conn(connection)  # type: ignore[misc]  # of the pool that it is mixed into


class _Pool(_Freed, HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(_Freed, HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class UpstreamSession(requests.Session):
    """A session that never uses a proxy for this machine's own addresses, and announces connections.

    Send requests with ``stream=True``, and read the bodies with :func:`parts`: the library itself has no
    limit for them.

    :param max_answer: the most bytes of a stream
    """

    def __init__(self, max_answer: int = MAX_ANSWER) -> None:
        super().__init__()
        self.max_answer = max_answer
        self.headers["Accept-Encoding"] = "identity"
        self.hooks["response"].append(_leave_redirect_unread)
        adapter = _Adapter(pool_connections=16, pool_maxsize=64)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:  # requests' name
        """Follow no redirect; without this, requests would parse the address of each one."""

    def merge_environment_settings(self, url: Any, *args: Any) -> Any:
        """Return the settings from the environment, without its proxies for a loopback address."""
        settings = super().merge_environment_settings(url, *args)
        if is_loopback(urlsplit(str(url)).hostname or ""):
            settings["proxies"] = {}
        return settings


def _leave_redirect_unread(response: requests.Response, **_: Any) -> None:
    """Close a redirect: the library would read its whole body."""
    if response.is_redirect:
        response.close()


def parts(response: requests.Response, most: int, hint: str = "") -> Generator[bytes, None, None]:
    """Yield the body of *response* as it comes, and then close *response*.

    :param most: the most bytes that it may have
    :param hint: what a person can do when it has more
    :raises UnfitAnswer: when it has more, or is packed
    """
    with closing(response):
        check_unpacked(response.headers.get("Content-Encoding", ""))
        receive = bounded(partial(response.raw.read1, _READ, decode_content=False), most, hint)
        while data := receive():
            yield data


@contextmanager
def translated(name: str, url: str, start_hint: Callable[[], str] = str) -> Iterator[None]:
    """Turn the exceptions of the library requests into our errors.

    :param name: the upstream's name, for messages
    :param url: the upstream's address, for messages
    :param start_hint: returns how to start the upstream on this machine; empty if that is unknown
    """
    try:
        yield
    except UnfitAnswer as exc:
        raise unfit(name, exc) from exc
    except requests.ConnectTimeout as exc:
        raise timed_out(name, url, connected=False) from exc
    except (requests.ReadTimeout, ReadTimeoutError, SilentUpstream) as exc:
        raise timed_out(name, url) from exc
    except HTTPError as exc:  # from urllib3, which reads the bodies of streams directly
        raise cut_off(name) from exc
    except requests.exceptions.ChunkedEncodingError as exc:
        raise cut_off(name) from exc
    except requests.ConnectionError as exc:
        raise _lost(name, url, exc, start_hint) from exc
    except (requests.RequestException, UnicodeError) as exc:
        if is_lone_surrogate(exc):
            raise lone_surrogate() from exc
        if cause_of(exc, InvalidHeader):  # of the answer, such as two lengths
            raise invalid_response(name, "its headers cannot be read") from exc
        raise UpstreamError(
            f"The request to {name} at {url} failed.",
            hint=f"Check the provider's base_url: {url}",
        ) from exc


def _lost(name: str, url: str, exc: requests.ConnectionError, start_hint: Callable[[], str]) -> ServiceError:
    """Return our error for a connection that was not made, or that brought no answer."""
    if "timed out" in str(exc):  # requests raises this class for a read timeout in the middle of a body
        return timed_out(name, url)
    if was_cut(exc):
        return cut_off(name)
    if cause_of(exc, HTTPException):
        return invalid_response(name, "its headers cannot be read")
    return unreachable(name, url, exc, start_hint())

"""The session of the library requests for Ollama and registries, and the errors for its exceptions."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from app.addresses import dialled
from app.config import is_loopback
from app.errors import UpstreamError
from app.upstream.failures import cut_off, is_lone_surrogate, lone_surrogate, timed_out, unreachable, was_cut
from app.upstream.reading import SilentUpstream, announce


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


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class UpstreamSession(requests.Session):
    """A session that never uses a proxy for this machine's own addresses, and announces connections."""

    def __init__(self) -> None:
        super().__init__()
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


@contextmanager
def translated(name: str, url: str, start_hint: Callable[[], str] = str) -> Iterator[None]:
    """Turn the exceptions of the library requests into our errors.

    :param name: the upstream's name, for messages
    :param url: the upstream's address, for messages
    :param start_hint: returns how to start the upstream on this machine; empty if that is unknown
    """
    try:
        yield
    except requests.ConnectTimeout as exc:
        raise timed_out(name, url, connected=False) from exc
    except (requests.ReadTimeout, ReadTimeoutError, SilentUpstream) as exc:
        raise timed_out(name, url) from exc
    except HTTPError as exc:  # from urllib3, which reads the bodies of streams directly
        raise cut_off(name) from exc
    except requests.exceptions.ChunkedEncodingError as exc:
        raise cut_off(name) from exc
    except requests.ConnectionError as exc:
        if "timed out" in str(exc):  # requests raises this class for a read timeout in the middle of a body
            raise timed_out(name, url) from exc
        if was_cut(exc):
            raise cut_off(name) from exc
        raise unreachable(name, url, exc, start_hint()) from exc
    except (requests.RequestException, UnicodeError) as exc:
        if is_lone_surrogate(exc):
            raise lone_surrogate() from exc
        raise UpstreamError(
            f"The request to {name} at {url} failed.",
            hint=f"Check the provider's base_url: {url}",
        ) from exc

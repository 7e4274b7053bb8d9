"""Follow the redirects of model registries, which keep layers on other servers, to public servers only.

A registry may redirect to itself, or over https to a server on the internet: never to this machine or its
network, where the redirect would reach services that nobody else can. The address that is connected to is
checked, because a name may have another address at each look-up. A registry that is itself on this machine or
its network may redirect to itself only.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from app.addresses import dialled, is_local, is_loopback

MOST = 5  # redirects one after another
_TO_LOCAL = "the redirect leads to this machine or its network"
_PORTS = {"http": 80, "https": 443}


class RedirectRefusedError(requests.RequestException):
    """A registry redirects to where it may not; the text says why."""


class RegistrySession(requests.Session):
    """Connects to registries; uses no proxy for this machine, and sends no credentials of a `.netrc`.

    :param public: whether to connect to public addresses only
    :param opened: is called with each connection before it is made
    """

    def __init__(
        self, *, public: bool = False, opened: Callable[[HTTPConnection], None] = lambda _: None
    ) -> None:
        super().__init__()
        self.auth = lambda request: request
        self.mount("http://", _Adapter(public, opened))
        self.mount("https://", _Adapter(public, opened))

    def get_redirect_target(self, resp: requests.Response) -> None:  # requests' name
        """Follow no redirect, :func:`follow` does; without this, requests would parse the address of each."""

    def merge_environment_settings(self, url: Any, *args: Any) -> Any:
        """Return the settings from the environment, without its proxies for a loopback address."""
        settings = super().merge_environment_settings(url, *args)
        if is_loopback(urlsplit(str(url)).hostname or ""):
            settings["proxies"] = {}
        return settings


class _Adapter(HTTPAdapter):
    def __init__(self, public: bool, opened: Callable[[HTTPConnection], None]) -> None:
        class Connection(_Checked, HTTPConnection):
            only_public, announce = public, staticmethod(opened)

        class SecureConnection(_Checked, HTTPSConnection):
            only_public, announce = public, staticmethod(opened)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = SecureConnection

        self._pools = {"http": Pool, "https": SecurePool}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools


class _NotPublicError(Exception):
    """A host has no public address."""


class _Checked:
    """Looks the host up, and connects to an address that is allowed."""

    only_public: bool
    announce: Callable[[Any], None]
    host: str
    port: int
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        self.announce(self)
        host = self._dns_host
        failure: Exception = _NotPublicError(host)
        try:
            for address in self._addresses(dialled(host)):
                self._dns_host = address  # the look-up is done: urllib3 must not do another one
                try:
                    made: socket.socket = super()._new_conn()  # type: ignore[misc]  # of the class beside
                except (NewConnectionError, ConnectTimeoutError) as exc:
                    failure = exc
                else:
                    return made
        finally:
            self._dns_host = host
        raise failure

    def _addresses(self: Any, host: str) -> list[str]:
        try:
            found = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise NameResolutionError(self.host, self, socket.gaierror(str(exc))) from exc
        texts = dict.fromkeys(str(entry[4][0]) for entry in found)
        return [text for text in texts if not self.only_public or not is_local(text)]


def follow(
    response: requests.Response, session: requests.Session, public: requests.Session, **options: Any
) -> requests.Response:
    """Follow the redirects from *response*, which was got without them; return the answer at their end.

    :param session: gets what is on the registry itself
    :param public: a :class:`RegistrySession` for public addresses, which gets what is elsewhere
    :param options: of ``get``, such as headers and timeout
    :raises RedirectRefusedError: when a redirect leads to where it may not
    :raises requests.RequestException: when a request fails
    """
    registry = response.url
    for _ in range(MOST):
        if not response.is_redirect:
            return response
        url = _target(registry, response)
        response.close()
        chosen = session if _server(url) == _server(registry) else public
        try:
            response = chosen.get(url, allow_redirects=False, **options)
        except _NotPublicError as exc:
            raise RedirectRefusedError(_TO_LOCAL) from exc
    if response.is_redirect:
        response.close()
        raise RedirectRefusedError("there are too many redirects")
    return response


def _target(registry: str, response: requests.Response) -> str:
    try:
        url = urljoin(response.url, response.headers["Location"])
        server, home = _server(url), _server(registry)
    except ValueError as exc:
        raise RedirectRefusedError("the redirect's address is none") from exc
    if server == home:
        return url
    if is_local(home[1]):
        raise RedirectRefusedError("a registry on this machine or its network may redirect to itself only")
    if server[0] != "https":
        raise RedirectRefusedError("the redirect does not lead to https")
    if is_local(server[1]):
        raise RedirectRefusedError(_TO_LOCAL)
    return url


def _server(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port.

    :raises ValueError: when *url* is none
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if not host or scheme not in _PORTS:
        raise ValueError(url)
    return scheme, host, parts.port or _PORTS[scheme]

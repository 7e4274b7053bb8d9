"""Redirects of registries: to themselves and to the internet, never to this machine and its network."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses

from app.redirects import MOST, RedirectRefusedError, RegistrySession, follow
from tests.raw_server import Connection, RawServer, raw_server

REGISTRY = "https://registry.example/v2/library/m/blobs/x"
HERE = "http://127.0.0.1:5005/v2/library/m/blobs/x"


def get(url: str, **headers: str) -> requests.Response:
    with RegistrySession() as session, RegistrySession(public=True) as public:
        first = session.get(url, allow_redirects=False, headers=headers, timeout=5)
        return follow(first, session, public, headers=headers, timeout=5)


def redirect(wire: responses.RequestsMock, url: str, to: str) -> None:
    wire.get(url, status=307, headers={"Location": to})


@pytest.mark.parametrize(
    ("start", "hops"),
    [
        (REGISTRY, ["https://cdn.example/a?signed=1"]),
        (REGISTRY, ["/elsewhere"]),
        (REGISTRY, ["//cdn.example/a"]),
        (REGISTRY, ["https://cdn.example/a", "https://other.example/b", REGISTRY + "y"]),
        (REGISTRY, ["https://1.1.1.1/a"]),
        (HERE, ["/storage/x"]),
        (HERE, ["http://127.0.0.1:5005/storage/x"]),
    ],
)
def test_redirect_is_followed(wire: responses.RequestsMock, start: str, hops: list[str]) -> None:
    url = start
    for hop in hops:
        redirect(wire, url, hop)
        url = requests.compat.urljoin(url, hop)
    wire.get(url, body=b"layer")

    answer = get(start, Range="bytes=5-")

    assert answer.content == b"layer"
    assert [call.request.headers["Range"] for call in wire.calls] == ["bytes=5-"] * (len(hops) + 1)


@pytest.mark.parametrize(
    ("start", "to"),
    [
        (REGISTRY, "http://cdn.example/a"),
        (REGISTRY, "http://registry.example/a"),
        (REGISTRY, "https://127.0.0.1/a"),
        (REGISTRY, "https://127.1/a"),
        (REGISTRY, "https://[::1]:8002/a"),
        (REGISTRY, "https://[::ffff:10.0.0.1]/a"),
        (REGISTRY, "https://169.254.169.254/latest/meta-data"),
        (REGISTRY, "https://localhost/a"),
        (REGISTRY, "https://x.localhost/a"),
        (REGISTRY, "file:///etc/passwd"),
        (REGISTRY, "https://[bad/a"),
        (REGISTRY, "https://cdn.example:x/a"),
        (HERE, "http://127.0.0.1:8002/api/health"),
        (HERE, "http://localhost:5005/a"),
        (HERE, "https://127.0.0.1:5005/a"),
        (HERE, "https://cdn.example/a"),
        ("http://192.168.0.2:5005/x", "https://cdn.example/a"),
    ],
)
def test_redirect_is_refused(wire: responses.RequestsMock, start: str, to: str) -> None:
    redirect(wire, start, to)

    with pytest.raises(RedirectRefusedError):
        get(start)


def test_redirects_without_end_are_refused(wire: responses.RequestsMock) -> None:
    redirect(wire, REGISTRY, REGISTRY)

    with pytest.raises(RedirectRefusedError, match="too many"):
        get(REGISTRY)

    assert len(wire.calls) == MOST + 1


@pytest.fixture
def service() -> Iterator[RawServer]:
    """A service on this machine that must not be reached."""
    with raw_server(Connection.end) as server:
        yield server


def test_name_that_leads_to_this_machine_is_not_connected_to(
    service: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    answer = requests.Response()
    answer.status_code, answer.url = 302, REGISTRY
    answer.raw = io.BytesIO()
    answer.headers["Location"] = f"https://rebound.example:{service.port}/a"

    with (
        RegistrySession(public=True) as public,
        pytest.raises(RedirectRefusedError, match="to this machine or its network"),
    ):
        follow(answer, requests.Session(), public, timeout=5)

    assert asked == ["rebound.example"]
    assert service.requests == []


def test_credentials_of_a_netrc_are_not_sent(
    wire: responses.RequestsMock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wire.get(REGISTRY, body=b"x")

    get(REGISTRY)

    assert "Authorization" not in wire.calls[0].request.headers

"""The openai clients: kept for their connections, replaced when a provider's settings change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from app.config import Timeouts
from app.errors import InvalidUpstreamKey
from app.services.providers.openai_api import OpenAIClients, ResponseBody
from app.services.providers.store import Provider
from app.upstream import transport
from app.upstream.reading import Body, Ticks
from tests.raw_server import Connection, RawServer, Script, raw_server

TIMEOUTS = Timeouts()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIClients]:
    """Clients whose idle connections stay open unless something closes them."""
    monkeypatch.setattr(transport, "_KEPT_PLAIN", (1, 600.0))
    clients = OpenAIClients()
    yield clients
    clients.close()


class Server(RawServer):
    """Answers `ok`, and counts the connections that were closed on it."""

    def __init__(self, script: Script) -> None:
        self.closed = threading.Semaphore(0)

        def counted(connection: Connection) -> None:
            script(connection)
            connection.wait_for_close()
            self.closed.release()

        super().__init__(counted)

    @property
    def provider(self) -> Provider:
        return Provider(id="mine", name="Mine", base_url=f"{self.url}/v1", api_key="sk-one")


def _answer_at_once(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(_answer_at_once)
    yield server
    server.close()


def _open(clients: OpenAIClients, provider: Provider, timeouts: Timeouts = TIMEOUTS) -> Body:
    """Return an answer whose first bytes came: they are `ok`."""
    found: list[ResponseBody] = []

    def opening() -> Ticks:
        found.append((yield from clients.open(provider, timeouts, "/chat/completions", {"model": "m"})))

    assert not any(opening())
    (body,) = found
    assert next(data for data in iter(body.receive, None) if data) == b"ok"
    return body


def _whole(body: Body) -> bytes:
    with closing(body):
        return b"".join(iter(body.receive, None))


def test_answer_goes_on_when_the_key_changes_and_then_its_client_is_closed(clients: OpenAIClients) -> None:
    go_on = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head()
        if b"sk-one" in connection.request:
            connection.send_chunk(b"ok")
            assert go_on.wait(20)
        connection.send_chunk(b"ok")
        connection.end()

    server = Server(script)
    old = _open(clients, server.provider)
    new = _open(clients, replace(server.provider, api_key="sk-two"))
    assert _whole(new) == b""

    go_on.set()
    assert not server.closed.acquire(blocking=False)
    assert _whole(old) == b"ok"

    assert server.closed.acquire(timeout=10)
    server.close()


def test_client_without_answers_is_closed_when_it_is_replaced(clients: OpenAIClients, server: Server) -> None:
    assert _whole(_open(clients, server.provider)) == b""

    replacing = _open(clients, replace(server.provider, api_key="sk-two"))

    assert server.closed.acquire(timeout=10)
    replacing.close()


def test_client_of_other_timeouts_replaces_the_kept_one(clients: OpenAIClients, server: Server) -> None:
    assert _whole(_open(clients, server.provider)) == b""

    answer = _open(clients, server.provider, replace(TIMEOUTS, connect=1))

    assert server.closed.acquire(timeout=10)
    answer.close()


def test_body_that_is_closed_twice_counts_once(clients: OpenAIClients, server: Server) -> None:
    one, other = _open(clients, server.provider), _open(clients, server.provider)
    one.close()
    one.close()
    new = _open(clients, replace(server.provider, api_key="sk-two"))

    assert _whole(other) == b""  # its client is open still
    new.close()


def test_client_of_a_refusal_is_given_back(clients: OpenAIClients) -> None:
    def refuse(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    with raw_server(refuse) as server:
        provider = Provider(id="mine", name="Mine", base_url=f"{server.url}/v1")
        with pytest.raises(InvalidUpstreamKey):
            _open(clients, provider)

    (client,) = clients._clients.values()
    assert client.answers == 0

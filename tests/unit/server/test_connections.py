"""Clients that are slow or silent do not keep the server from others."""

from __future__ import annotations

import errno
import logging

import pytest

from app.server.connection import Connection, peer_of
from app.server.listener import Listener
from tests.engine.process import wait_until
from tests.sockets import is_open
from tests.unit.server.conftest import Serve, Served, read

GET = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n"
HEAD = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "


def is_healthy(served: Served) -> bool:
    with served.connect(GET + b"Connection: close\r\n\r\n") as connection:
        return read(connection).status == 200


@pytest.mark.parametrize(
    "begun", [b"", b"GET", GET, HEAD + b"50\r\n\r\nx", HEAD + b"500000\r\n\r\nx", b"\r\n\r\n"]
)
def test_silent_connection_gives_way_to_a_new_one(serve: Serve, begun: bytes) -> None:
    with serve(connections=16) as served:
        silent = [served.connect(begun) for _ in range(40)]

        assert is_healthy(served)
        assert len(served.listener.active_channels) <= 17
        for connection in silent:
            connection.close()


def test_longest_silent_connection_gives_way_first_and_a_body_that_is_allowed_last(serve: Serve) -> None:
    with serve(connections=16) as served:
        body = served.connect(HEAD + b"500000\r\n\r\nx")
        wait_until(lambda: any(c.silence[0] for c in list(served.listener.active_channels.values())))
        others = []
        for number in range(1, 16):
            others.append(served.connect(GET))
            wait_until(lambda number=number: len(served.listener.active_channels) == number + 1)

        with served.connect():
            wait_until(lambda: not is_open(others[0]))

        assert is_open(body)
        assert all(is_open(connection) for connection in others[1:])
        for connection in (body, *others):
            connection.close()


def test_running_requests_never_give_way_and_a_surplus_client_is_told(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "may_give_way", False)
    with serve(connections=16) as served:
        running = [served.connect() for _ in range(16)]
        wait_until(lambda: len(served.listener.active_channels) == 16)

        answer = served.ask("GET /api/health HTTP/1.1\nHost: localhost")

        assert (answer.status, answer.json["error_type"]) == (503, "server_busy")
        assert all(is_open(connection) for connection in running)
        for connection in running:
            connection.close()


def test_one_client_has_a_share_and_this_machine_has_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(connections=40) as served:
        local = [served.connect() for _ in range(20)]
        wait_until(lambda: len(served.listener.active_channels) == 20)
        monkeypatch.setattr("app.server.connection.peer_of", lambda _: "192.0.2.1")
        monkeypatch.setattr("app.server.listener.peer_of", lambda _: "192.0.2.1")

        remote = [served.connect() for _ in range(15)]

        wait_until(lambda: sum(is_open(connection) for connection in remote) == 10)
        assert all(is_open(connection) for connection in local)
        for connection in (*local, *remote):
            connection.close()


def test_slow_head_is_answered_and_a_connection_without_a_request_is_closed(serve: Serve) -> None:
    with serve(head_timeout=0.1) as served:
        with served.connect(GET) as connection:
            answer = read(connection)
        with served.connect() as silent:
            assert read(silent).data == b""

        assert (answer.status, answer.json["error_type"]) == (408, "request_timeout")


def test_idle_connection_is_closed_and_a_used_one_is_kept(serve: Serve) -> None:
    with serve(client_timeout=2.5) as served, served.connect() as used, served.connect() as idle:
        for connection in (used, idle):
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65536)

        idle.setblocking(True)
        while is_open(idle):
            used.setblocking(True)
            used.sendall(GET + b"\r\n")
            assert used.recv(65536)

        assert is_open(used)


def test_client_that_does_not_read_its_answer_is_closed(serve: Serve) -> None:
    with serve(client_timeout=1) as served, served.connect() as connection:
        asset = b"GET /api/docs/assets/swagger-ui-bundle.js.map HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(asset * 10)
        wait_until(lambda: any(c.total_outbufs_len for c in list(served.listener.active_channels.values())))

        wait_until(lambda: not served.listener.active_channels)


def test_no_more_files_close_silent_connections_and_do_not_spin(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[int] = []
    accept = Listener.accept

    def accept_or_fail(listener: Listener) -> object:
        if len(listener.active_channels) > 5:
            failures.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(Listener, "accept", accept_or_fail)
    with serve() as served:
        silent = [served.connect(GET) for _ in range(20)]

        assert is_healthy(served)
        monkeypatch.setattr(Connection, "may_give_way", False)
        more = [served.connect() for _ in range(10)]
        wait_until(lambda: served.listener._resume)
        failures.clear()
        wait_until(lambda: failures)
        assert len(failures) == 1  # in a second
        monkeypatch.undo()
        assert is_healthy(served)
        for connection in (*silent, *more):
            connection.close()

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1  # in a minute
    assert "Too many open files" in warnings[0].getMessage()


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_peer_is_what_one_client_has(address: str, peer: str | None) -> None:
    assert peer_of(address) == peer

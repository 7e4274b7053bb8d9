"""HTTP to a provider: what odd servers send, what TLS adds, and which connections are used again."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest

from app.upstream import connection as wire
from app.upstream import transport as transport_module
from app.upstream.connection import DirectBody
from app.upstream.limits import TooMuch
from app.upstream.reading import announcing, hang_up
from app.upstream.transport import DirectTransport, Pool
from tests.certificates import Tls
from tests.raw_server import Connection, RawServer, Script, raw_server

TIMEOUTS = {"connect": 5.0, "write": 5.0, "read": 5.0, "pool": 5.0}


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectTransport]:
    """A transport whose idle connections stay for longer than a busy machine may take for a test."""
    monkeypatch.setattr(transport_module, "_KEPT_PLAIN", (1, 60.0))
    transport = DirectTransport()
    yield transport
    transport.close()


def _ask(
    transport: DirectTransport, url: str, content: bytes = b"?", read_timeout: float = 5.0
) -> httpx2.Response:
    timeouts = {**TIMEOUTS, "read": read_timeout}
    request = httpx2.Request("POST", url, content=content, extensions={"timeout": timeouts})
    return transport.handle_request(request)


def _body(response: httpx2.Response) -> DirectBody:
    body = response.extensions["direct_body"]
    assert isinstance(body, DirectBody)
    return body


def _answer(transport: DirectTransport, url: str) -> bytes:
    response = _ask(transport, url)
    try:
        return b"".join(_body(response))
    finally:
        response.close()


def _sends(*parts: bytes) -> Script:
    def script(connection: Connection) -> None:
        for part in parts:
            connection.send(part)

    return script


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"llo"],
        [b"HTTP/1.1 200 OK\r\n\r\nhello"],  # ends with the connection
        [b"HTTP/1.0 200 OK\r\n\r\nhello"],
        [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
        [CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
        [CHUNKED, b"5", b"\r", b"\nhel", b"lo\r", b"\n0\r\n\r\n"],
        [CHUNKED + b"5;name=value\r\nhello\r\n0\r\n\r\n"],
        [CHUNKED + b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
    ],
)
def test_body_is_found_however_it_is_framed(transport: DirectTransport, parts: list[bytes]) -> None:
    with raw_server(_sends(*parts)) as server:
        assert _answer(transport, server.url) == b"hello"


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"9\r\nhello",
        CHUNKED + b"5\r\nhello\r\nzz\r\n",
        CHUNKED + b"5\r\nhellooooo",
    ],
)
def test_cut_or_garbled_body_is_an_error_after_what_came(transport: DirectTransport, part: bytes) -> None:
    with raw_server(_sends(part)) as server:
        response = _ask(transport, server.url)
        found: list[bytes] = []
        with pytest.raises(httpx2.RemoteProtocolError):
            found.extend(_body(response))
        response.close()

    assert b"".join(found) == b"hello"


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        CHUNKED.replace(b"chunked", b"gzip, chunked"),
    ],
)
def test_head_that_is_none_is_an_error(transport: DirectTransport, part: bytes) -> None:
    with raw_server(_sends(part)) as server, pytest.raises(httpx2.TransportError):
        _ask(transport, server.url)


def test_head_without_end_is_an_error(transport: DirectTransport) -> None:
    part = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000

    with raw_server(_sends(part)) as server, pytest.raises(TooMuch, match="headers have more than"):
        _ask(transport, server.url)


def test_first_token_does_not_wait_for_those_that_came_with_it(transport: DirectTransport) -> None:
    with raw_server(_sends(CHUNKED + b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")) as server:
        body = _body(_ask(transport, server.url))
        first = body.receive()
        rest = b"".join(body)
        body.close()

    assert (first, rest) == (b"a", b"bc")


def test_bytes_that_bring_nothing_give_the_taker_a_turn_too(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "TICK", 60.0)

    def script(connection: Connection) -> None:
        connection.send(CHUNKED)
        go_on.wait(5)
        connection.send(b"5;name=")  # half a line
        connection.wait_for_close()

    found: list[bytes | None] = []
    go_on = threading.Event()
    with raw_server(script) as server:
        body = _body(_ask(transport, server.url))
        go_on.set()
        taker = threading.Thread(target=lambda: found.append(body.receive()), daemon=True)
        taker.start()
        taker.join(10)
        body.close()

    assert found == [b""]


@pytest.mark.parametrize("encrypted", [False, True])
def test_silence_gives_the_taker_a_turn(tls: Tls, monkeypatch: pytest.MonkeyPatch, encrypted: bool) -> None:
    monkeypatch.setattr(wire, "TICK", 0.01)
    go_on = threading.Event()

    def script(connection: Connection) -> None:
        connection.send_head()
        go_on.wait(5)
        connection.send_chunk(b"late")
        connection.end()

    transport = DirectTransport(tls.client if encrypted else None)
    with raw_server(script, tls.server if encrypted else None) as server:
        body = _body(_ask(transport, server.url))
        assert body.receive() == b""
        go_on.set()
        assert b"".join(body) == b"late"
        assert body.receive() is None
        body.close()
    transport.close()


def test_iterating_ends_after_the_limit_of_silence(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "TICK", 0.01)

    def script(connection: Connection) -> None:
        connection.send_head()
        connection.wait_for_close()

    with raw_server(script) as server:
        response = _ask(transport, server.url, read_timeout=0.05)
        with pytest.raises(httpx2.ReadTimeout):
            list(_body(response))
        response.close()


def test_server_that_never_answers_is_a_read_timeout(transport: DirectTransport) -> None:
    with raw_server(Connection.wait_for_close) as server, pytest.raises(httpx2.ReadTimeout):
        _ask(transport, server.url, read_timeout=0.05)


def test_refused_connection_is_a_connect_error(transport: DirectTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(httpx2.ConnectError):
        _ask(transport, f"http://127.0.0.1:{port}")


def test_unknown_host_is_a_connect_error(transport: DirectTransport) -> None:
    with pytest.raises(httpx2.ConnectError):
        _ask(transport, "http://no-such-host.invalid")


@pytest.mark.parametrize("encrypted", [False, True])
def test_refusal_before_all_of_a_request_was_read_is_found(tls: Tls, encrypted: bool) -> None:
    transport = DirectTransport(tls.client if encrypted else None)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            # Else the refusal waits behind the TLS session's tickets, and closing the connection drops it.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, tls.server.wrap_socket(connection, True) if encrypted else connection as end:
                end.recv(1000)
                end.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"{'https' if encrypted else 'http'}://localhost:{listener.getsockname()[1]}"
        response = _ask(transport, url, b"x" * 20_000_000)
        thread.join(5)

    assert response.status_code == 413
    response.close()


def test_server_that_reads_nothing_is_a_write_timeout(transport: DirectTransport) -> None:
    timeouts = {**TIMEOUTS, "write": 0.1}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        request = httpx2.Request("POST", url, content=b"x" * 20_000_000, extensions={"timeout": timeouts})
        with pytest.raises(httpx2.WriteTimeout):
            transport.handle_request(request)


def test_hanging_up_ends_the_wait_for_an_answer(transport: DirectTransport) -> None:
    with (
        raw_server(Connection.wait_for_close) as server,
        announcing(lambda connection: hang_up(connection)),
        pytest.raises(httpx2.TransportError),
    ):
        _ask(transport, server.url)


def _counts(connection: Connection) -> None:
    """Answer each request of a connection."""
    while True:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if not connection.read_request():
            return


class CountingServer(RawServer):
    """Counts the connections."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0

        def counted(connection: Connection) -> None:
            self.connections += 1
            script(connection)

        super().__init__(counted, tls)


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    server = CountingServer(_counts)
    yield server
    server.close()


def test_connection_is_used_again(transport: DirectTransport, counting: CountingServer) -> None:
    for _ in range(3):
        assert _answer(transport, counting.url) == b"ok"

    assert counting.connections == 1


def test_connection_that_rests_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_KEPT_PLAIN", (1, 0.05))
    closed = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        _counts(connection)
        closed.release()

    transport, server = DirectTransport(), CountingServer(script)
    try:
        for number in (1, 2):
            assert _answer(transport, server.url) == b"ok"
            assert closed.acquire(timeout=5)
            assert server.connections == number
    finally:
        transport.close()
        server.close()


def test_connection_that_rests_too_long_is_not_used_again(
    counting: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "_KEPT_PLAIN", (1, -1.0))
    monkeypatch.setattr(Pool, "_sweep", lambda self: None)  # it comes too late
    transport = DirectTransport()
    for _ in range(2):
        assert _answer(transport, counting.url) == b"ok"

    transport.close()
    assert counting.connections == 2


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        # Its body is read while the answer is still being opened, so that somebody may yet hang up on it.
        (b"HTTP/1.1 429 Slow Down\r\nContent-Length: 2\r\n\r\nno", b"no"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", b"ok"),
    ],
)
def test_open_connection_of_a_refusal_or_with_more_on_it_is_not_used_again(
    transport: DirectTransport, answer: bytes, body: bytes
) -> None:
    def script(connection: Connection) -> None:
        connection.send(answer)
        connection.wait_for_close()

    server = CountingServer(script)
    try:
        for number in (1, 2):
            assert _answer(transport, server.url) == body
            assert server.connections == number
    finally:
        server.close()


def test_connection_of_an_answer_that_was_not_read_is_not_used_again(
    transport: DirectTransport, counting: CountingServer
) -> None:
    _ask(transport, counting.url).close()

    assert _answer(transport, counting.url) == b"ok"
    assert counting.connections == 2


def test_connection_that_was_announced_is_announced_again(
    transport: DirectTransport, counting: CountingServer
) -> None:
    announced: list[socket.socket] = []
    with announcing(announced.append):
        _answer(transport, counting.url)
        _answer(transport, counting.url)

    assert len(announced) == 2
    assert announced[0] is announced[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",  # and then the server closes it
    ],
)
def test_connection_that_is_over_is_not_used_again(transport: DirectTransport, answer: bytes) -> None:
    closed = threading.Semaphore(0)

    class Closing(CountingServer):
        def _serve(self, sock: socket.socket) -> None:
            super()._serve(sock)
            closed.release()

    server = Closing(_sends(answer))
    try:
        for number in range(1, 4):
            assert _answer(transport, server.url) == b"ok"
            assert closed.acquire(timeout=5)
            assert server.connections == number
    finally:
        server.close()


def _kept(transport: DirectTransport, url: str, count: int) -> list[int]:
    """Ask *count* times at once; return which of the connections are open after that."""
    responses = [_ask(transport, url) for _ in range(count)]
    for response in responses:
        assert b"".join(_body(response)) == b"ok"
        response.close()
    connections = [_body(response).sock for response in responses]
    return [number for number, connection in enumerate(connections) if connection.fileno() != -1]


def test_plain_connection_is_kept_when_no_other_request_waits_for_a_thread_of_the_server(
    transport: DirectTransport, counting: CountingServer
) -> None:
    assert _kept(transport, counting.url, 5) == [4]


def test_of_tls_some_connections_are_kept(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_KEPT_TLS", (3, 60.0))
    server, transport = CountingServer(_counts, tls.server), DirectTransport(tls.client)

    assert _kept(transport, server.url, 5) == [0, 1, 2]

    transport.close()
    server.close()


def test_close_closes_idle_connections_and_those_that_come_back(counting: CountingServer) -> None:
    transport = DirectTransport()
    idle, busy = _ask(transport, counting.url), _ask(transport, counting.url)
    assert b"".join(_body(idle)) == b"ok"
    idle.close()

    transport.close()
    assert _body(idle).sock.fileno() == -1
    assert b"".join(_body(busy)) == b"ok"
    busy.close()

    assert _body(busy).sock.fileno() == -1


def test_closing_twice_gives_a_connection_back_once(
    transport: DirectTransport, counting: CountingServer
) -> None:
    first = _ask(transport, counting.url)
    assert b"".join(_body(first)) == b"ok"
    _body(first).close()
    _body(first).close()

    one, other = _ask(transport, counting.url), _ask(transport, counting.url)

    assert _body(one).sock is not _body(other).sock
    one.close()
    other.close()


def test_requests_at_once_get_their_own_answers(transport: DirectTransport) -> None:
    def echo(connection: Connection) -> None:
        while True:
            said = connection.request.partition(b"\r\n\r\n")[2]
            connection.send_head()
            for byte in said:
                connection.send_chunk(bytes([byte]))
            connection.end()
            if not connection.read_request():
                return

    right: list[bytes] = []

    def client(number: int) -> None:
        for turn in range(20):
            said = f"{number}/{turn}".encode()
            response = _ask(transport, server.url, said)
            heard = b"".join(_body(response))
            response.close()
            if heard == said:
                right.append(heard)

    with raw_server(echo) as server:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    assert len(right) == 160


def test_tls_is_spoken_and_its_connections_are_used_again(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_KEPT_TLS", (32, 60.0))
    server, transport = CountingServer(_counts, tls.server), DirectTransport(tls.client)
    try:
        for _ in range(3):
            assert _answer(transport, server.url) == b"ok"
    finally:
        server.close()
        transport.close()

    assert server.connections == 1


def test_answer_larger_than_a_record_of_tls_is_whole(tls: Tls) -> None:
    body = bytes(range(256)) * 1000

    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    transport = DirectTransport(tls.client)
    with raw_server(script, tls.server) as server:
        assert _answer(transport, server.url) == body
    transport.close()


def test_hanging_up_ends_the_wait_for_an_answer_over_tls(tls: Tls) -> None:
    transport = DirectTransport(tls.client)
    with (
        raw_server(Connection.wait_for_close, tls.server) as server,
        announcing(lambda connection: hang_up(connection)),
        pytest.raises(httpx2.TransportError),
    ):
        _ask(transport, server.url)


def test_certificate_of_somebody_else_is_a_connect_error(tls: Tls) -> None:
    transport = DirectTransport(ssl.create_default_context())
    with (
        raw_server(_counts, tls.server) as server,
        pytest.raises(httpx2.ConnectError) as caught,
    ):
        _ask(transport, server.url)

    assert isinstance(caught.value.__cause__, ssl.SSLError)


def test_server_without_tls_is_a_connect_error(tls: Tls) -> None:
    transport = DirectTransport(tls.client)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                while connection.recv(65536):
                    pass

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(httpx2.ConnectError) as caught:
            _ask(transport, f"https://localhost:{listener.getsockname()[1]}")

    assert isinstance(caught.value.__cause__, ssl.SSLError)

"""HTTP to a provider: what odd servers send, what TLS adds, and which connections are used again."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import httpx2
import pytest

from app.upstream import connection as wire
from app.upstream import threaded as reading_in_threads
from app.upstream import transport as transport_module
from app.upstream.limits import TooMuch
from app.upstream.transport import DirectAnswer, DirectTransport, Pool
from tests.certificates import Tls
from tests.raw_server import Connection, RawServer, Script, raw_server

TIMEOUTS = {"connect": 5.0, "write": 5.0, "read": 5.0, "pool": 5.0}


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectTransport]:
    """A transport whose idle connections stay for longer than a busy machine may take for a test."""
    monkeypatch.setattr(transport_module, "_KEPT_PLAIN", (9, 60.0))
    transport = DirectTransport()
    yield transport
    transport.close()


def _made(transport: DirectTransport, url: str, content: bytes = b"?", **timeouts: float) -> DirectAnswer:
    """Return the answer to a request that is not sent yet."""
    request = httpx2.Request("POST", url, content=content, extensions={"timeout": {**TIMEOUTS, **timeouts}})
    answer = transport.handle_request(request).extensions["answer"]
    assert isinstance(answer, DirectAnswer)
    return answer


def _ask(transport: DirectTransport, url: str, content: bytes = b"?", **timeouts: float) -> DirectAnswer:
    """Return an answer that has begun."""
    answer = _made(transport, url, content, **timeouts)
    try:
        assert not any(answer.begin())
    except BaseException:
        answer.close()
        raise
    return answer


def _parts(answer: DirectAnswer) -> Iterator[bytes]:
    return iter(answer.receive, None)


def _answer(transport: DirectTransport, url: str) -> bytes:
    with closing(_ask(transport, url)) as answer:
        return b"".join(_parts(answer))


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
        [CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"5\r\nhello\r\n0\r\n\r\n"],
        [CHUNKED + b"5  \r\nhello\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"],
        [b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"],
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
        found: list[bytes] = []
        with closing(_ask(transport, server.url)) as answer, pytest.raises(httpx2.RemoteProtocolError):
            found.extend(_parts(answer))

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


@pytest.mark.parametrize(
    "part", [b"5;" + b"x" * 200_000, b"5\r\nhello\r\n0\r\nX: " + b"x" * 400_000], ids=["extension", "trailer"]
)
def test_frame_without_end_is_an_error(transport: DirectTransport, part: bytes) -> None:
    with (
        raw_server(_sends(CHUNKED + part)) as server,
        closing(_ask(transport, server.url)) as answer,
        pytest.raises(TooMuch),
    ):
        list(_parts(answer))


def test_header_of_two_lines_is_not_sent(transport: DirectTransport) -> None:
    with raw_server(_sends(b"")) as server:
        headers = {"Authorization": "Bearer x\r\nX-More: y"}
        request = httpx2.Request("GET", server.url, headers=headers, extensions={"timeout": TIMEOUTS})
        answer = transport.handle_request(request).extensions["answer"]
        with closing(answer), pytest.raises(httpx2.LocalProtocolError):
            list(answer.begin())

    assert server.requests == []


@pytest.mark.parametrize("encrypted", [False, True])
def test_closing_ends_the_wait_for_an_answer(
    tls: Tls, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    monkeypatch.setattr(wire, "TICK", 0.01)
    closed = threading.Event()

    def script(connection: Connection) -> None:
        connection.wait_for_close()
        closed.set()

    transport = DirectTransport(tls.client if encrypted else None)
    with raw_server(script, tls.server if encrypted else None) as server:
        answer = _made(transport, server.url)
        assert next(answer.begin()) == b""
        answer.close()

        assert closed.wait(20)
    transport.close()


@contextmanager
def _listener_that_accepts_nothing() -> Iterator[str]:
    """Listen with a queue that is full: further connections are neither made nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        for _ in range(5):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into the queue")
def test_connecting_gives_turns_and_ends_in_time(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "TICK", 0.01)
    turns: list[bytes] = []
    with (
        _listener_that_accepts_nothing() as url,
        closing(_made(transport, url, connect=0.1)) as answer,
        pytest.raises(httpx2.ConnectTimeout),
    ):
        turns.extend(answer.begin())

    assert set(turns) == {b""}


def test_agreeing_about_tls_gives_turns_and_ends_in_time(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "TICK", 0.01)
    turns: list[bytes] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,  # which never says a word
        closing(
            _made(DirectTransport(tls.client), f"https://localhost:{listener.getsockname()[1]}", connect=0.1)
        ) as answer,
        pytest.raises(httpx2.ConnectTimeout),
    ):
        turns.extend(answer.begin())

    assert set(turns) == {b""}


def test_looking_up_a_name_gives_turns_and_ends_in_time(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_in_threads, "TICK", 0.01)
    go_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: go_on.wait(60) and [])
    turns: list[bytes] = []

    with (
        closing(_made(transport, "http://models.example", connect=0.1)) as answer,
        pytest.raises(httpx2.ConnectTimeout),
    ):
        turns.extend(answer.begin())
    go_on.set()

    assert set(turns) == {b""}


def test_second_address_of_a_name_is_tried(
    transport: DirectTransport, counting: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = listener.getsockname()
    serving = ("127.0.0.1", int(counting.url.rpartition(":")[2]))
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (refusing, serving)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)

    assert _answer(transport, "http://models.example") == b"ok"


def test_connection_with_more_on_it_is_not_used_again(transport: DirectTransport) -> None:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more")
        connection.wait_for_close()

    server = CountingServer(script)
    try:
        for number in (1, 2):
            assert _answer(transport, server.url) == b"ok"
            assert server.connections == number
    finally:
        server.close()


def test_first_token_does_not_wait_for_those_that_came_with_it(transport: DirectTransport) -> None:
    part = CHUNKED + b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"
    with raw_server(_sends(part)) as server, closing(_ask(transport, server.url)) as answer:
        first = answer.receive()
        rest = b"".join(_parts(answer))

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
    with raw_server(script) as server, closing(_ask(transport, server.url)) as answer:
        go_on.set()
        taker = threading.Thread(target=lambda: found.append(answer.receive()), daemon=True)
        taker.start()
        taker.join(10)

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
    with (
        raw_server(script, tls.server if encrypted else None) as server,
        closing(_ask(transport, server.url)) as answer,
    ):
        assert answer.receive() == b""
        go_on.set()
        assert b"".join(_parts(answer)) == b"late"
        assert answer.receive() is None
    transport.close()


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
        with closing(_ask(transport, url, b"x" * 20_000_000)) as answer:
            assert answer.status == 413
        thread.join(5)


def test_server_that_reads_nothing_is_a_write_timeout(transport: DirectTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(httpx2.WriteTimeout):
        _ask(transport, f"http://127.0.0.1:{listener.getsockname()[1]}", b"x" * 20_000_000, write=0.1)


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


def test_connection_of_an_answer_that_was_not_read_is_not_used_again(transport: DirectTransport) -> None:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        connection.wait_for_close()

    server = CountingServer(script)
    try:
        for number in (1, 2):
            _ask(transport, server.url).close()
            assert server.connections == number
    finally:
        server.close()


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
    answers = [_ask(transport, url) for _ in range(count)]
    for answer in answers:
        assert b"".join(_parts(answer)) == b"ok"
        answer.close()
    return [number for number, answer in enumerate(answers) if _socket(answer).fileno() != -1]


def _socket(answer: DirectAnswer) -> socket.socket:
    assert answer._connection is not None
    return answer._connection.sock


def test_of_plain_http_as_many_connections_are_kept_as_the_server_served_at_once(
    transport: DirectTransport, counting: CountingServer
) -> None:
    assert _kept(transport, counting.url, 5) == [0, 1, 2, 3, 4]


def test_server_with_one_thread_is_not_kept_busy_by_an_idle_connection() -> None:
    """Its second client waits until the first connection is closed, and is then answered."""
    transport = DirectTransport()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                sock, _ = listener.accept()
                with sock:
                    _counts(Connection(sock)) if Connection(sock).read_request() else None

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with closing(_ask(transport, url)) as first, closing(_made(transport, url)) as second:
            waiting = second.begin()
            assert next(waiting) == b""
            assert b"".join(_parts(first)) == b"ok"
            first.close()

            assert not any(waiting)
            assert b"".join(_parts(second)) == b"ok"
    transport.close()


def test_of_tls_some_connections_are_kept(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_KEPT_TLS", (3, 60.0))
    server, transport = CountingServer(_counts, tls.server), DirectTransport(tls.client)

    assert _kept(transport, server.url, 5) == [0, 1, 2]

    transport.close()
    server.close()


def test_close_closes_idle_connections_and_those_that_come_back(counting: CountingServer) -> None:
    transport = DirectTransport()
    idle, busy = _ask(transport, counting.url), _ask(transport, counting.url)
    assert b"".join(_parts(idle)) == b"ok"
    idle.close()

    transport.close()
    assert _socket(idle).fileno() == -1
    assert b"".join(_parts(busy)) == b"ok"
    busy.close()

    assert _socket(busy).fileno() == -1


def test_closing_twice_gives_a_connection_back_once(
    transport: DirectTransport, counting: CountingServer
) -> None:
    first = _ask(transport, counting.url)
    assert b"".join(_parts(first)) == b"ok"
    first.close()
    first.close()

    one, other = _ask(transport, counting.url), _ask(transport, counting.url)

    assert _socket(one) is not _socket(other)
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
            with closing(_ask(transport, server.url, said)) as answer:
                heard = b"".join(_parts(answer))
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

"""Streams of events, and whether the client of a request is still there."""

from __future__ import annotations

import inspect
import socket
import ssl
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, g

from app import streaming
from app.errors import UpstreamError
from app.streaming import ClientGone, Event, client_left, event_stream, last_event

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def plain() -> Iterator[Ends]:
    """The server's and the client's end of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def encrypted(plain: Ends) -> Iterator[Ends]:
    """The ends of a TLS connection; anonymous, so that it needs no certificate."""
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(contexts[1].wrap_socket, plain[1])
        with contexts[0].wrap_socket(plain[0], server_side=True) as ours, client.result() as theirs:
            yield ours, theirs


def test_client_that_hung_up_has_left(plain: Ends) -> None:
    ours, theirs = plain
    before = client_left({"gunicorn.socket": ours})

    theirs.close()

    assert (before, client_left({"gunicorn.socket": ours})) == (False, True)


def test_client_of_an_encrypted_connection_is_taken_to_be_there(encrypted: Ends) -> None:
    assert client_left({"gunicorn.socket": encrypted[0]}) is False


ERROR = UpstreamError("It broke.")


class Parts:
    """The generator of a service, which keeps whether it was closed."""

    def __init__(self, *parts: list[Event] | Exception) -> None:
        self.is_over = False
        self.generator = self._generate(parts)

    def _generate(self, parts: tuple[list[Event] | Exception, ...]) -> Generator[list[Event], None, None]:
        try:
            for part in parts:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            self.is_over = True


def _delta(number: int) -> list[Event]:
    return [("delta", {"n": number})]


@pytest.fixture
def asked() -> Iterator[dict[str, bool]]:
    """A request; its client leaves when ``left`` is set."""
    state = {"left": False}
    app = Flask(__name__)
    environ = {"waitress.client_disconnected": lambda: state["left"]}
    with app.test_request_context(environ_overrides=environ):
        g.request_id = "id-1"
        yield state


def _names(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line.startswith((b"event:", b":"))]


@pytest.mark.usefixtures("asked")
def test_events_are_written_as_they_come_and_the_service_is_closed() -> None:
    parts = Parts([], _delta(1), [], _delta(2) + _delta(3))

    response = event_stream(parts.generator)
    written = [part for part in response.response if isinstance(part, bytes)]

    assert [part.count(b"event: delta\n") for part in written] == [1, 2]
    assert parts.is_over


@pytest.mark.usefixtures("asked")
def test_at_most_one_generator_is_between_the_service_and_the_server() -> None:
    depths: list[int] = []

    def service() -> Generator[list[Event], None, None]:
        yield _delta(0)
        frame, depth = inspect.currentframe(), -1  # without this one
        while frame:
            in_app = frame.f_code.co_filename == streaming.__file__ or frame.f_code.co_name == "service"
            depth += in_app and bool(frame.f_code.co_flags & inspect.CO_GENERATOR)
            frame = frame.f_back
        depths.append(depth)
        yield _delta(1)

    list(event_stream(service()).response)

    assert depths == [1]


@pytest.mark.usefixtures("asked")
def test_failure_before_the_first_event_is_raised() -> None:
    parts = Parts([], ERROR)

    with pytest.raises(UpstreamError):
        event_stream(parts.generator)


@pytest.mark.parametrize("error", [ERROR, RuntimeError("secret")])
@pytest.mark.usefixtures("asked")
def test_failure_after_the_first_event_is_the_last_one(error: Exception) -> None:
    data = event_stream(Parts(_delta(1), error).generator).get_data()

    assert _names(data) == [b"event: delta", b"event: error"]
    assert b"secret" not in data


@pytest.mark.usefixtures("asked")
def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PING_INTERVAL", -1.0)

    data = event_stream(Parts(_delta(1), [], _delta(2)).generator).get_data()

    assert _names(data) == [b"event: delta", b": ping", b"event: delta"]


def test_client_that_leaves_before_the_first_event_ends_the_service(asked: dict[str, bool]) -> None:
    asked["left"] = True
    parts = Parts([], _delta(1))

    assert event_stream(parts.generator).status_code == 499
    assert parts.is_over


def test_client_that_leaves_in_mid_stream_ends_the_service(asked: dict[str, bool]) -> None:
    parts = Parts(_delta(1), [], _delta(2))
    response = event_stream(parts.generator)
    asked["left"] = True

    assert _names(response.get_data()) == [b"event: delta"]
    assert parts.is_over


@pytest.mark.usefixtures("asked")
def test_response_that_is_closed_before_its_body_began_ends_the_service() -> None:
    parts = Parts(_delta(1), _delta(2))

    event_stream(parts.generator).close()

    assert parts.is_over


@pytest.mark.usefixtures("asked")
def test_stream_of_no_events_is_204() -> None:
    assert event_stream(Parts([], []).generator).status_code == 204


def test_last_event_of_a_client_that_left_is_an_error(asked: dict[str, bool]) -> None:
    parts = Parts([], _delta(1))
    asked["left"] = True

    with pytest.raises(ClientGone):
        last_event(parts.generator)
    assert parts.is_over


def test_first_event_that_cannot_be_written_is_no_success(app: Flask) -> None:
    closed = []

    def events() -> Generator[list[Event], None, None]:
        try:
            yield [("start", {"speed": float("nan")})]
        finally:
            closed.append(True)

    with app.test_request_context():
        g.request_id = "id"
        with pytest.raises(ValueError, match="JSON"):
            event_stream(events())

    assert closed == [True]

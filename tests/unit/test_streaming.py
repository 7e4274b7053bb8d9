"""Whether the client of a request is still there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.streaming import client_left

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

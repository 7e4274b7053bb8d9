"""The idle connections to a server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from app.upstream.connection import Connection
from app.upstream.transport import Pool

MakeLine = Callable[[], Connection]


@pytest.fixture
def make_line() -> Iterator[MakeLine]:
    """Make a connection."""
    with ExitStack() as stack:

        def make() -> Connection:
            near, far = socket.socketpair()
            stack.enter_context(near)
            stack.enter_context(far)
            return Connection(near)

        yield make


def _is_open(line: Connection) -> bool:
    return line.sock.fileno() != -1


def test_connection_that_was_given_back_is_taken_next(make_line: MakeLine) -> None:
    pool, line = Pool(1, 60.0, at_once=9), make_line()
    assert pool.take() is None
    pool.give_back(line, may_be_kept=True)

    assert pool.take() is line

    pool.give_back(line, may_be_kept=False)
    assert not _is_open(line)


@pytest.mark.parametrize("at_once", [1, 2])
def test_connection_is_kept_beside_other_requests_where_that_is_allowed(
    make_line: MakeLine, at_once: int
) -> None:
    pool, line = Pool(1, 60.0, at_once=at_once), make_line()
    pool.take()
    pool.take()

    pool.give_back(line, may_be_kept=True)

    assert _is_open(line) is (at_once == 2)
    pool.close()


def test_as_many_connections_are_kept_as_the_server_served_at_once(make_line: MakeLine) -> None:
    pool, lines = Pool(9, 60.0, at_once=1), [make_line() for _ in range(3)]
    for _ in lines:
        pool.take()
    for line in lines[:2]:  # the third one may wait for a thread of the server
        pool.answered(line)

    for line in lines:
        pool.give_back(line, may_be_kept=True)

    assert [_is_open(line) for line in lines] == [False, True, True]
    pool.close()


def test_closed_connection_does_not_count_as_served_at_once(make_line: MakeLine) -> None:
    pool, lines = Pool(9, 60.0, at_once=1), [make_line() for _ in range(2)]
    for line in lines:
        pool.take()
        pool.answered(line)
        pool.give_back(line, may_be_kept=False)
    first, second = make_line(), make_line()
    pool.take()
    pool.take()

    pool.give_back(first, may_be_kept=True)
    pool.give_back(second, may_be_kept=True)

    assert [_is_open(line) for line in (first, second)] == [False, True]
    pool.close()


def test_request_that_got_no_connection_is_not_under_way_any_more(make_line: MakeLine) -> None:
    pool, line = Pool(1, 60.0, at_once=1), make_line()
    pool.take()
    pool.give_back(None, may_be_kept=False)

    pool.take()
    pool.give_back(line, may_be_kept=True)

    assert _is_open(line)
    pool.close()


def test_closed_pool_keeps_nothing(make_line: MakeLine) -> None:
    pool, idle, busy = Pool(2, 60.0, at_once=9), make_line(), make_line()
    pool.take()
    pool.take()
    pool.give_back(idle, may_be_kept=True)

    pool.close()
    pool.give_back(busy, may_be_kept=True)

    assert not _is_open(idle)
    assert not _is_open(busy)

"""Read an upstream's answer without blocking for longer than one tick.

A service that passes on a stream has work to do while the upstream is silent: it keeps the client's
connection alive, notices when the client leaves, and enforces timeouts. So neither sending a request nor
reading its answer ever blocks for longer than one tick, in the thread of the client's request:
:mod:`app.upstream.transport` polls the connection; :mod:`app.upstream.threaded` lets a thread read, where the
connection cannot be polled.

Everything that is read has a limit, in bytes and in seconds: :func:`read_all` limits the seconds of a whole
answer, :func:`read` those without progress; :mod:`app.upstream.limits` limits the bytes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol

from app.errors import ServerStopping
from app.stopping import stopping
from app.upstream.limits import TooMuch

TICK = 0.5
"""Seconds that one read waits for a silent upstream."""

Chunks = Generator[bytes, None, None]
"""The bytes of an answer as they come, and ``b""`` after each tick without bytes."""


Ticks = Generator[bytes, None, None]
"""Yields ``b""`` after each tick in which the work was not done yet."""


class Body(Protocol):
    """An open answer."""

    def receive(self) -> bytes | None:
        """Return the bytes that came; ``b""`` when none came within a tick, None at the end."""

    def close(self) -> None:
        """Return the connection to its pool, or close it."""


Opening = Generator[bytes, None, Body]
"""Sends a request: yields ``b""`` after each tick without an answer, and returns the open answer."""


class SilentUpstream(Exception):
    """The upstream sent nothing, or no progress, within its timeout."""


def read(
    opening: Opening, *, first_byte: float, idle: float, progress: Callable[[], int] | None = None
) -> Chunks:
    """Open an answer and yield its bytes as they come; ``b""`` after each tick without bytes.

    Closing the generator closes the connection to the upstream.

    :param first_byte: seconds until the first progress
    :param idle: seconds between one progress and the next
    :param progress: counts the events found so far: comments are no progress; None to count bytes
    :raises SilentUpstream: when there is no progress in time
    :raises ServerStopping: when this process is being stopped
    :raises Exception: what opening or reading raises
    """
    body: Body | None = None
    seen = 0
    deadline = time.monotonic() + first_byte
    try:
        while True:
            body = body or _step(opening)
            data = body.receive() if body else b""
            if data is None:
                return
            if stopping.is_set():
                raise ServerStopping
            now = time.monotonic()  # before the yield: the caller may be slow, while bytes arrive
            yield data
            found = progress() if progress else seen + len(data)
            if found > seen:
                seen, deadline = found, time.monotonic() + idle
            elif now > deadline:
                raise SilentUpstream
    finally:
        (body or opening).close()


def _step(opening: Opening) -> Body | None:
    """Return the open answer; None when there is none after a tick."""
    try:
        next(opening)
    except StopIteration as end:
        body: Body = end.value
        return body
    return None


def read_all(opening: Opening, *, limit: float, most: int | None = None) -> Chunks:
    """Open an answer and yield the whole body as the last item; ``b""`` after each tick without bytes.

    :param limit: seconds that the whole answer may take
    :param most: bytes that it may have; None for the limit of all answers
    :raises SilentUpstream: when it takes longer
    :raises TooMuch: when it is larger
    """
    parts: list[bytes] = []
    size = 0
    # Nothing counts as progress, so that the first deadline holds for the whole answer.
    with closing(read(opening, first_byte=limit, idle=limit, progress=lambda: 0)) as chunks:
        for data in chunks:
            if not data:
                yield b""
            parts.append(data)
            size += len(data)
            if most is not None and size > most:
                raise TooMuch(f"it has more than {most} bytes")
    yield b"".join(parts)


def let_end(chunks: Chunks) -> None:
    """Read for one more tick after a complete answer, so that its connection can be used again.

    A stream's last event often comes before the end of the body. Errors no longer matter.
    """
    with contextlib.suppress(Exception):
        next(chunks, None)

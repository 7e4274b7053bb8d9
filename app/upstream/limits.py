"""The most bytes of an answer and of a line of it, and what is told about an answer that has more."""

from __future__ import annotations

from collections.abc import Callable

LINE_LIMIT = 16_000_000
"""The most bytes of a line or an event of a stream, and of a list: an answer may hold images in base64."""


RAISE_LIMIT = "If the provider's answers are right, raise BACKEND_MAX_ANSWER and start this program again."
"""The hint for an answer that is larger than the user's limit."""


class UnfitAnswer(Exception):
    """The answer is not read any further.

    :param what: what is wrong with it, as a part of a sentence about it
    :param hint: what a person can do about it
    :param details: facts for a program
    """

    def __init__(self, what: str, hint: str = "", details: dict[str, int] | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.details = details or {}


class TooMuch(UnfitAnswer):
    """The answer, or a line of it, has too many bytes."""


def too_large(most: int, hint: str = "") -> TooMuch:
    """Return the exception for an answer of more than *most* bytes."""
    return TooMuch(f"it has more than {most} bytes", hint, {"max_bytes": most})


def too_long() -> TooMuch:
    """Return the exception for a line of more than :data:`LINE_LIMIT` bytes."""
    return TooMuch(f"a line of it has more than {LINE_LIMIT} bytes", details={"max_line_bytes": LINE_LIMIT})


def bounded(
    receive: Callable[[], bytes | None], most: int, hint: str = RAISE_LIMIT
) -> Callable[[], bytes | None]:
    """Return *receive* of a :class:`~app.upstream.reading.Body`, which then fails after *most* bytes.

    :param hint: what a person can do then
    :raises TooMuch: when more bytes came
    """
    left = most

    def take() -> bytes | None:
        nonlocal left
        data = receive()
        if data:
            left -= len(data)
            if left < 0:
                raise too_large(most, hint)
        return data

    return take


def check_unpacked(encoding: str) -> None:
    """Check that an answer with the ``Content-Encoding`` *encoding* is not packed: nothing here unpacks.

    :raises UnfitAnswer: when it is packed, although no request asks for that
    """
    if encoding.strip().lower() not in {"", "identity"}:
        hint = "Switch compression off in the server or the proxy at the provider's base_url."
        raise UnfitAnswer("it is compressed, which was not asked for", hint)


class Lines:
    """Splits a stream into its lines, as bytes: str would cut at U+2028."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* completes, without their ends.

        :raises TooMuch: when the next line is longer than :data:`LINE_LIMIT`
        """
        self._rest += data
        lines: list[bytes] = []
        if b"\n" in data:  # else a long line would be searched again for each part of it
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        if len(self._rest) > LINE_LIMIT:
            raise too_long()
        return lines

    def end(self) -> bytes:
        """Return the bytes after the last line, once the stream is over."""
        rest, self._rest = bytes(self._rest), bytearray()
        return rest

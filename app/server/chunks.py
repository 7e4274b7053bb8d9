"""Read a chunked body (RFC 9112, section 7.1)."""

from __future__ import annotations

import re
from typing import Protocol

from waitress.receiver import ChunkedReceiver

from app.server.head import MalformedRequest

_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_LONGEST_LINE = 4096  # bytes
_MOST_TRAILER_LINES = 32


class Buffer(Protocol):
    """Where the bytes of a body go."""

    def append(self, data: bytes) -> None:
        """Add *data*."""

    def __len__(self) -> int: ...


class Chunks(ChunkedReceiver):
    """Reads the chunks as strictly as :mod:`.head` reads a head, and holds no long line.

    :meth:`received` raises MalformedRequest. The trailer is checked and dropped.
    """

    def __init__(self, buf: Buffer) -> None:
        super().__init__(buf)  # type: ignore[arg-type]  # it uses these methods only
        self._line = b""  # the beginning of a line whose end has not come
        self._left = 0  # bytes of the present chunk, and of the line break after it
        self._trailer_lines = -1  # before the trailer

    def received(self, s: bytes) -> int:
        """Read *s*; return how much of it belongs to the body."""
        at = 0
        while at < len(s) and not self.completed:
            if self._left > 2:
                data = s[at : at + self._left - 2]
                self.buf.append(data)
                self._left -= len(data)
                at += len(data)
            elif self._left:
                if s[at] != b"\n\r"[self._left - 1]:
                    raise MalformedRequest("A chunk of the body is longer than its size says.")
                self._left -= 1
                at += 1
            else:
                at = self._read_line(s, at)
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        """Read a line of *data* from *at*; return where the next one begins."""
        end = data.find(b"\n", at, at + _LONGEST_LINE)
        stop = end + 1 if end >= 0 else len(data)
        self._line += data[at:stop]
        if len(self._line) > _LONGEST_LINE:
            raise MalformedRequest("A line between the chunks of the body is too long.")
        if end >= 0:
            line, self._line = self._line, b""
            self._take_line(line[:-2] if line.endswith(b"\r\n") else line)
        return stop

    def _take_line(self, line: bytes) -> None:
        if self._trailer_lines >= 0:
            self._trailer_lines += 1
            self.completed = not line
            if line and (not _TRAILER_LINE.fullmatch(line) or self._trailer_lines > _MOST_TRAILER_LINES):
                raise MalformedRequest("The trailer of the body is not valid.")
            return
        size = _SIZE_LINE.fullmatch(line)
        if size is None:
            raise MalformedRequest("The size of a chunk is not valid.")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailer_lines = 0

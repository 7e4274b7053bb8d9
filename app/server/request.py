"""Read a request, and a large body only after the app has looked at the head."""

from __future__ import annotations

import io
import logging
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flask import Flask, Response
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest

from app.errors import ServiceError
from app.security import examine
from app.server.answer import Answer
from app.server.chunks import Chunks
from app.server.head import MalformedRequest, read_head
from app.server.refusals import Refusal, too_many_bodies, too_many_connections, unstorable

if TYPE_CHECKING:
    from app.server.connection import Connection

log = logging.getLogger(__name__)

_UNSEEN = 65_536  # bytes of a body that are taken before the app looks at the head: a usual chat pays nothing
_IN_MEMORY = 1 << 19  # bytes of a body


class Bodies:
    """Counts the bytes of all large bodies that the server holds.

    :param app: looks at the heads
    :param limit: the largest number of bytes
    :param folder: for the bodies that do not stay in memory
    :ivar held: the bytes now
    """

    def __init__(self, app: Flask, limit: int, folder: Path) -> None:
        self.app = app
        self.folder = folder
        self._limit = limit
        self.held = 0
        self._lock = threading.Lock()  # threads let go the bodies that the server's thread took

    def take(self, size: int) -> bool:
        """Count *size* bytes more; return False if the limit does not allow them."""
        with self._lock:
            if self.held + size > self._limit:
                return False
            self.held += size
            return True

    def let_go(self, size: int) -> None:
        """Count *size* bytes less."""
        with self._lock:
            self.held -= size


class Body:
    """The bytes of one body: in memory, and from a size on in a file that has no name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] = io.BytesIO()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        """Add *data*.

        :raises OSError: when the disk takes no more
        """
        if self._size <= _IN_MEMORY < self._size + len(data):
            in_memory, self._file = self._file, tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            in_memory.seek(0)
            self._file.write(in_memory.read())
        self._file.seek(0, io.SEEK_END)
        self._file.write(data)
        self._size += len(data)

    def getfile(self) -> IO[bytes]:
        """Return the file, to be read from its beginning."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Delete the bytes."""
        self._file.close()


class Request(HTTPRequestParser):
    """One request: its head is checked, and the app is asked before a large body is taken.

    :ivar refusal: the answer if the server refuses the request; None if waitress did it, or nobody
    :ivar is_admitted: whether the app allows a large body
    """

    path = ""
    version = "1.1"  # of the answer to a head that cannot be read
    command = ""  # type: ignore[assignment]  # the stubs say bytes
    refusal: Refusal | None = None
    is_admitted = False

    def __init__(self, adj: Adjustments, connection: Connection) -> None:
        super().__init__(adj)
        self._connection = connection
        self._bodies = connection.bodies
        self._limit = _UNSEEN
        self._counted = 0  # bytes of the body that Bodies counts

    def received(self, data: bytes) -> int:
        """Read *data*; return how much of it belongs to this request."""
        try:
            consumed = super().received(data)
            if self.error is None and self.headers_finished:
                self._check()
        except MalformedRequest as exc:  # in the chunks of the body
            self.refuse(exc)
        except OSError as exc:
            log.warning("A body cannot be stored: %s", exc.strerror or type(exc).__name__)
            self.refuse(unstorable(exc))
        if self.error is None:
            return consumed
        self.completed, self.expect_continue = True, False
        self.close()
        self.empty = self._connection.refuse(self)
        return len(data)  # what follows is no request

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head, and make the buffer for the body."""
        try:
            head = read_head(header_plus)
        except MalformedRequest as exc:
            self.refuse(exc)
            return
        self.command, self.version, self.headers = head.method, head.version, head.fields
        self.request_uri, self.path, self.query = head.target, head.path, head.query
        self.url_scheme = self.adj.url_scheme
        self.chunked, self.content_length = head.is_chunked, head.length
        if self.chunked:
            del self.headers["TRANSFER_ENCODING"]  # the app sees the whole body, with its length
            self.body_rcv = Chunks(Body(self._bodies.folder))
        elif self.content_length:
            body = Body(self._bodies.folder)  # it has the methods that are called
            self.body_rcv = FixedStreamReceiver(self.content_length, body)  # type: ignore[arg-type]
        has_more = self.version == "1.1" and self.body_rcv is not None
        self.expect_continue = has_more and self.headers.get("EXPECT", "").lower() == "100-continue"

    def refuse(self, error: ServiceError) -> None:
        """Note the answer that the server gives instead of the app."""
        self.error, self.refusal = BadRequest(""), Refusal.because(error, self.path)

    def close(self) -> None:
        """Delete the body."""
        super().close()
        self._bodies.let_go(self._counted)
        self._counted = 0

    def _check(self) -> None:
        """Refuse the request if the app, or a limit of the server, does not allow it."""
        body = self.body_rcv
        if self._connection.is_surplus:
            self.refuse(too_many_connections())
        if body is None or self.error is not None:
            return
        # Before the app was asked, the lines between the chunks count as well: they can be most of the bytes.
        size = max(self.content_length, len(body) if self.is_admitted else self.body_bytes_received)
        if size > self._limit or (self.expect_continue and not self.is_admitted):
            self._ask(size)
        if self.is_admitted and self.error is None:
            self._count(len(body) - self._counted)

    def _ask(self, size: int) -> None:
        """Ask the app whether this request may have a body of *size* bytes."""
        environ = Answer(self._connection, self).get_environment()
        answer = examine(
            self._bodies.app, {**environ, "CONTENT_LENGTH": str(size), "wsgi.input": io.BytesIO()}
        )
        if isinstance(answer, Response):
            self.error, self.refusal = BadRequest(""), Refusal.of(answer)
        else:
            self.is_admitted, self._limit = True, answer

    def _count(self, size: int) -> None:
        if self._bodies.take(size):
            self._counted += size
        else:
            self.refuse(too_many_bodies())

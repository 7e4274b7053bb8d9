"""Write answers: the head in one send with the first bytes of the body."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from waitress.task import WSGITask
from waitress.utilities import build_http_date

from app.stopping import stopping

if TYPE_CHECKING:
    from app.server.request import Request
    from app.server.serving import ServedChannel


class Answer(WSGITask):
    """Answers a request, and closes the connection if the process is being stopped."""

    channel: ServedChannel
    request: Request  # type: ignore[assignment]  # the stubs want an error

    def __init__(self, channel: ServedChannel, request: Request) -> None:
        super().__init__(channel, request)  # type: ignore[arg-type]  # the stubs want an error

    @property
    def has_body(self) -> bool:
        """Whether bytes follow the head."""
        return self.request.command != "HEAD" and super().has_body

    def write(self, data: bytes) -> None:
        """Send *data* of the body, the first with the head."""
        head = b""
        if not self.wrote_header:
            head = self.build_response_header()
            self.wrote_header = True
        if not (data and self.has_body):
            body = b""
        elif self.chunked_response:
            body = b"%X\r\n%b\r\n" % (len(data), data)
        elif self.content_length is not None:
            body = data[: self.content_length - self.content_bytes_written]
        else:
            body = data
        self.content_bytes_written += len(data)
        if head or body:
            self.channel.write_soon(head + body)

    def set_close_on_finish(self) -> None:
        """Close the connection after this answer; its head says so."""
        self.close_on_finish = True

    def build_response_header(self) -> bytes:
        """Return the head; note how the body is framed, and whether the connection closes after it."""
        if stopping.is_set():
            self.close_on_finish = True
        headers = self.response_headers
        names = {name.lower() for name, _ in headers}
        lines = [f"HTTP/{self.version} {self.status}", *[f"{name}: {value}" for name, value in headers]]
        if self.has_body and "content-length" not in names:
            if self.content_length is not None:
                lines.append(f"Content-Length: {self.content_length}")
            elif self.version == "1.1":
                self.chunked_response = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self.close_on_finish = True
        connection = self.request.headers.get("CONNECTION", "").lower()
        if connection == "close" or (self.version == "1.0" and connection != "keep-alive"):
            self.close_on_finish = True
        if self.close_on_finish:
            lines.append("Connection: close")
        elif self.version == "1.0":
            lines.append("Connection: Keep-Alive")
        if "date" not in names:
            lines.append(f"Date: {_date(int(time.time()))}")
        lines += ["", ""]
        return "\r\n".join(lines).encode("latin-1")


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    date: str = build_http_date(second)
    return date

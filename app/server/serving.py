"""Serve the requests of a connection in one thread, as long as they follow each other closely.

With one interpreter lock, handing a request to another thread costs more than reading it. So the server's
thread, which waits for all clients, hands over a connection once: the thread that answers its first request
also waits a moment for the next one, reads and answers that, and so on. It hands the connection back when no
request comes for a moment, or when other requests wait for a thread.

While :attr:`ServedChannel.has_thread` is true, the server's thread does not read from the connection. It
sends what the client did not take at once, and closes the connection when the client takes nothing for long.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

from waitress.channel import ClientDisconnected, HTTPChannel

from app.errors import server_failed
from app.server.answer import Answer
from app.server.refusals import ErrorAnswer
from app.server.request import Request

if TYPE_CHECKING:
    from app.server.listener import Listener

log = logging.getLogger(__name__)

_MOMENT = 0.02  # seconds that a thread waits for the next request of its connection
_MOST_AHEAD = 65_536  # bytes that are read while a request runs


class ServedChannel(HTTPChannel):
    """A connection, as the thread sees it that serves its requests.

    :ivar has_thread: whether the connection waits for a thread or has one
    """

    server: Listener
    request: Request | None
    requests: list[Request]
    requests_lock: threading.Lock  # not in the stubs
    socket: socket.socket
    has_thread = False
    _ahead = b""  # what came while a request ran

    def service(self) -> None:
        """Serve the requests that came, and those that follow closely; then hand the connection back."""
        try:
            while self.requests:
                self.serve_next()
                if self.server.task_dispatcher.is_short:
                    break
                if not self.requests and self._may_stay:
                    self._await_request()
        except BaseException:
            self.cancel()
            raise
        finally:
            self._hand_back()

    def serve_next(self) -> None:
        """Answer the first of the requests that came."""
        request = self.requests[0]
        closes = self._answer_to(request)
        with self.requests_lock:
            over = self.requests if closes else [request]
            self.requests = self.requests[len(over) :]
            for done in over:
                done.close()
            if closes:
                self.close_when_flushed = True
            elif self.request is not None and not self.requests and self._waits_to_continue(self.request):
                self.send_continue()
        if self.current_outbuf_count:  # the next answer gets a buffer of its own, and this one is freed
            self.current_outbuf_count = self.adj.outbuf_high_watermark
        if self._ahead and not closes:
            data, self._ahead = self._ahead, b""
            self.received(data)

    def write_soon(self, data: bytes) -> int:
        """Send *data* at once as far as the client takes it; the server's thread sends the rest.

        :raises ClientDisconnected: when the client has left
        """
        sent = 0
        if self.connected and not self.total_outbufs_len and isinstance(data, bytes):
            with contextlib.suppress(OSError):  # sending the rest meets it again
                sent = self.send(data, do_close=False)
            if sent == len(data):
                return sent
        super().write_soon(data[sent:] if sent else data)
        return len(data)

    def check_client_disconnected(self) -> bool:  # type: ignore[override]  # the stubs say None
        """Tell whether the client has left. Its next request, which can come before, is kept."""
        if self.connected and len(self._ahead) < _MOST_AHEAD:
            self._ahead += self._receive()
        return not self.connected

    def _answer_to(self, request: Request) -> bool:
        """Answer *request*; return whether the connection has to be closed then."""
        task = ErrorAnswer(self, request) if request.error else Answer(self, request)
        try:
            if not self.connected:
                return True
            task.service()
        except ClientDisconnected:
            log.info("the client left during %s", request.path)
            return True
        except Exception:  # the outermost edge: the thread goes on with other requests
            log.exception("%s failed", request.path)
            if not task.wrote_header and not request.error:
                request.refuse(server_failed())
                self._answer_to(request)
            return True
        return task.close_on_finish

    @property
    def _may_stay(self) -> bool:
        """Whether a request can follow: the answer was taken, and the connection stays open."""
        return self.connected and not (self.total_outbufs_len or self.close_when_flushed or self.will_close)

    def _await_request(self) -> None:
        """Read the next request if it comes within a moment."""
        deadline = time.monotonic() + _MOMENT
        left = _MOMENT
        while left > 0 and self._may_stay and not self.requests and self._has_input(left):
            if data := self._receive():
                self.received(data)
            left = deadline - time.monotonic()

    def _has_input(self, seconds: float) -> bool:
        """Wait for input for *seconds* at most; return whether there is some."""
        if not hasattr(select, "poll"):  # Windows
            return bool(select.select([self.socket], [], [], seconds)[0])
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _receive(self) -> bytes:
        """Return what has come; note when the client has left."""
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if data:
            self.last_activity = time.time()
        else:
            self.connected = False
        return data

    def _hand_back(self) -> None:
        """Let another thread serve the requests that are left, or the server's thread wait for the next."""
        if self.requests:
            self.server.task_dispatcher.add_task(self)  # type: ignore[arg-type]  # the stubs want a Task
            return
        self.last_activity = time.time()
        self.will_close = self.will_close or not self.connected
        self.has_thread = False  # the last step: from now on the connection belongs to the other thread
        self.server.pull_trigger()

    @staticmethod
    def _waits_to_continue(request: Request) -> bool:
        return request.expect_continue and request.headers_finished

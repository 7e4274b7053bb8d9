"""Waitress for the engine: no kind of request, and no idle connection, keeps others from being served.

Each kind of request has a lane with threads of its own: pulls that wait for a registry leave the threads of
chats and of the lists alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.utilities import Error

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 1 << 40  # weights are uploaded; waitress writes large bodies to the disk
_MAX_CONNECTIONS = 2000
_FILES_PER_CONNECTION = 3  # its own, the one to the runner or registry, and a file
_OTHER_FILES = 200
_IDLE_SECONDS = 60.0  # after which a thread ends
BUSY = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's message when too many requests wait; the status is 503."""


class Request(Protocol):
    """A connection of waitress, whose first request is to be served."""

    def service(self) -> None:
        """Serve the request."""

    def cancel(self) -> None:
        """Close the connection without an answer."""


class BusyError(Error):
    """The answer to a request for which there is no thread."""

    code = 503
    reason = "Service Unavailable"

    def to_response(self, ident: str | None = None) -> Any:  # waitress's name  # noqa: ARG002
        """Return status, headers and body, with Ollama's error body."""
        headers = [("Content-Type", "application/json; charset=utf-8"), ("Retry-After", "1")]
        return f"{self.code} {self.reason}", headers, json.dumps({"error": BUSY}).encode()


class Lane:
    """Threads for the requests of one kind; a thread is started when it is needed.

    :param threads: the most requests that run at once
    :param waiting: the most requests that wait for a thread
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._most_threads = threads
        self._most_waiting = waiting
        self._queue: deque[Request] = deque()
        self._changed = threading.Condition()
        self._requests = self._threads = 0  # of the requests: those that run, and those in the queue
        self._is_closing = False

    def add(self, request: Request) -> bool:
        """Serve *request* in a thread; return False when there is neither a thread nor room to wait."""
        with self._changed:
            if self._requests >= self._most_threads + self._most_waiting:
                return False
            if self._requests >= self._threads and self._threads < self._most_threads:
                try:
                    threading.Thread(target=self._work, name="request", daemon=True).start()
                except RuntimeError:  # the system has no thread left
                    return False
                self._threads += 1
            self._requests += 1
            self._queue.append(request)
            self._changed.notify()
        return True

    def close(self, seconds: float) -> None:
        """Cancel the requests that wait, and wait for those that run."""
        with self._changed:
            self._is_closing = True
            for request in self._queue:
                request.cancel()
            self._requests -= len(self._queue)
            self._queue.clear()
            self._changed.wait_for(lambda: not self._requests, seconds)

    def _work(self) -> None:
        while request := self._next():
            self._serve(request)

    def _next(self) -> Request | None:
        """Wait for a request; None when none came for a minute."""
        with self._changed:
            if self._changed.wait_for(lambda: self._queue, _IDLE_SECONDS):
                return self._queue.popleft()
            self._threads -= 1
            return None

    def _serve(self, request: Request) -> None:
        try:
            request.service()
        except BaseException:  # as in waitress: the thread goes on with other requests
            log.exception("a request failed")
        with self._changed:
            self._requests -= 1
            if self._is_closing:
                self._changed.notify_all()


class Lanes:
    """Waitress's dispatcher: gives each request to the lane of its kind.

    :param connections: the most connections; the requests that take long never use all of them
    """

    def __init__(self, connections: int) -> None:
        self._brief = Lane(16, connections)
        chats = Lane(min(512, connections // 2), 0)
        pulls = Lane(min(256, connections // 4), 0)
        self._lanes = {"/api/pull": pulls, "/api/create": pulls, "/api/blobs": Lane(8, connections // 8)}
        for path in ("chat", "generate", "embed", "embeddings"):
            self._lanes[f"/api/{path}"] = chats
        for path in ("chat/completions", "completions", "embeddings"):
            self._lanes[f"/v1/{path}"] = chats

    def add_task(self, channel: Any) -> None:
        """Serve the first request of *channel*; if its lane is full, answer that the server is busy."""
        request = channel.requests[0]
        if not self._lane(request.command, request.path).add(channel):
            request.error = BusyError(BUSY)
            if not self._brief.add(channel):
                channel.cancel()

    def _lane(self, method: str, path: str) -> Lane:
        if method != "POST":
            return self._brief
        path = "/" + path.strip("/")
        return self._lanes.get("/api/blobs" if path.startswith("/api/blobs/") else path, self._brief)

    def shutdown(self, timeout: float = 5) -> bool:
        """Cancel the requests that wait, and give those that run *timeout* seconds to end."""
        deadline = time.monotonic() + timeout
        for lane in {self._brief, *self._lanes.values()}:
            lane.close(max(0.0, deadline - time.monotonic()))
        return True


class Channel(HTTPChannel):
    """A connection; when there are too many, the one that has been idle for the longest time is closed."""

    def __init__(self, server: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        if len(server.active_channels) > server.most_connections:
            channels = server.active_channels.values()
            idle = [channel for channel in channels if not (channel.requests or channel.will_close)]
            oldest = min(idle, key=lambda channel: channel.last_activity, default=self)
            oldest.will_close = True

    def received(self, data: bytes) -> bool:
        """Take bytes of a request; close the connection when there is no room for a long body on the disk."""
        try:
            return bool(super().received(data))
        except OSError as exc:
            log.warning("a request's body cannot be stored in %s: %s", tempfile.gettempdir(), exc.strerror)
            self.will_close = True
            return False


def listen(app: Flask, host: str, port: int) -> Any:
    """Return the server of *app*, which listens already; ``run()`` serves.

    :raises OSError: when the address cannot be used
    """
    connections = min(_MAX_CONNECTIONS, (_allow_files() - _OTHER_FILES) // _FILES_PER_CONNECTION)
    connections = max(connections, 16)
    sockets: dict[int, Any] = {}
    server: Any = create_server(
        app,
        map=sockets,
        _dispatcher=cast("Any", Lanes(connections)),
        host=host,
        port=port,
        ident=None,
        channel_request_lookahead=1,  # else waitress notices no disconnect while a request runs
        max_request_body_size=_MAX_BODY_BYTES,
        connection_limit=connections + 100,  # is never reached: idle connections are closed before
        asyncore_use_poll=True,  # select() cannot wait for file descriptors above 1023
    )
    for listener in list(sockets.values()):  # a host name with several addresses has several
        if hasattr(listener, "active_channels"):
            listener.channel_class, listener.most_connections = Channel, connections
    return server


def _allow_files() -> int:
    """Raise the limit of open files as far as it is needed and possible; return it."""
    wanted = _MAX_CONNECTIONS * _FILES_PER_CONNECTION + _OTHER_FILES
    try:
        import resource
    except ImportError:  # Windows has no such limit, but select() there waits for 512 sockets at most
        return 512 * _FILES_PER_CONNECTION
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        return limit
    return soft

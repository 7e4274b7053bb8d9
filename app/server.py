"""Serve the app with Waitress, set up for many streams: each has a thread and a connection until it ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import Task, ThreadedTaskDispatcher, WSGITask

from app.config import Config
from app.stopping import stopping

log = logging.getLogger(__name__)

_LIMIT_FOR_OTHERS = 1 << 30  # bytes of a body, when other machines can reach the server
_IDLE_CONNECTIONS = 1000  # that clients keep open between requests
_PATIENCE = 4.0  # seconds that running answers have to end, once the process is being stopped
_STUCK_AFTER = 1.0  # seconds after which a client that reads nothing is not waited for
_POLL = 0.1  # seconds


class GrowingDispatcher(ThreadedTaskDispatcher):
    """Waitress's threads; a request starts a new one when none is idle.

    :param limit: the largest number of threads
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def add_task(self, task: Task) -> None:
        """Queue *task*, and start a thread for it when none is idle."""
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()
            idle = len(self.threads) - self.stop_count - self.active_count
            waiting, running = len(self.queue) - idle, len(self.threads)
        if waiting > 0 and running < self._limit:
            self.set_thread_count(running + 1)
        elif waiting > 0:
            log.warning("%d requests wait for a thread: BACKEND_THREADS is %d", waiting, self._limit)


class _Task(WSGITask):
    """Answers a request; closes the connection after it when the process is being stopped."""

    def build_response_header(self) -> bytes:
        if stopping.is_set():
            self.set_close_on_finish()
        return super().build_response_header()


class _Channel(HTTPChannel):
    """A client's connection."""

    task_class = _Task

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way, or bytes of an answer wait for the client."""
        return bool(self.requests or self.total_outbufs_len)

    @property
    def is_stuck(self) -> bool:
        """Whether the client has read nothing of the waiting bytes for a second."""
        with self.outbuf_lock:  # bytes that are just being sent do not wait
            return bool(self.total_outbufs_len) and time.time() - self.last_activity > _STUCK_AFTER


def serve(
    app: Flask,
    config: Config,
    listener: socket.socket,
    stop: Callable[[], None],
    close: Callable[[], None],
) -> None:
    """Serve *app* on *listener* until SIGTERM or SIGINT.

    Then the running answers end, new requests are refused, and last *close* is called, in a thread.

    :param stop: is called by the signals' handler; sets :data:`~app.stopping.stopping`
    :param close: closes what the running answers use
    """
    server = _make_server(app, config, listener)

    def handle(*_: object) -> None:
        stop()
        server.pull_trigger()  # wakes the loop, if another thread got the signal

    for how in (signal.SIGTERM, signal.SIGINT):
        signal.signal(how, handle)
    while not stopping.is_set():
        _poll(server, 1.0)
    _let_answers_end(server, _PATIENCE)
    closing = threading.Thread(target=close, name="close")
    closing.start()
    while closing.is_alive():
        _poll(server, _POLL)
    _let_answers_end(server, _POLL)


def _poll(server: Any, timeout: float) -> None:
    """Read requests and write answers; wait for them up to *timeout* seconds."""
    server.asyncore.loop(timeout, use_poll=True, map=server._map, count=1)  # noqa: SLF001


def _let_answers_end(server: Any, patience: float) -> None:
    """Serve until no request is under way and all answers are written, or until *patience* seconds are over.

    A client that reads nothing is hung up on, which ends its request.
    """
    deadline = time.monotonic() + patience
    while True:
        _poll(server, _POLL)
        for channel in list(server.active_channels.values()):
            if channel.is_stuck:
                channel.handle_close()
        is_busy = server.task_dispatcher.active_count or any(
            channel.is_busy for channel in server.active_channels.values()
        )
        if not is_busy or time.monotonic() > deadline:
            return


def _make_server(app: Flask, config: Config, listener: socket.socket) -> Any:
    connections = config.threads + _IDLE_CONNECTIONS
    _allow_files(connections + config.threads)  # a stream has a second connection, to the provider
    server: Any = create_server(
        app,
        sockets=[listener],
        connection_limit=connections,
        asyncore_use_poll=True,  # select() cannot wait for file descriptors above 1023
        max_request_body_size=_body_limit(config),
        channel_request_lookahead=1,  # reads on during a request, so that a view learns that its client left
        clear_untrusted_proxy_headers=True,
        ident=None,
        _dispatcher=GrowingDispatcher(config.threads),
    )
    server.channel_class = _Channel
    return server


def _allow_files(count: int) -> None:
    """Raise the limit of open files to *count*, or to the system's hard limit; often the limit is 1024."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in {-1, resource.RLIM_INFINITY} and soft < count:
        wanted = count if hard in {-1, resource.RLIM_INFINITY} else min(count, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _body_limit(config: Config) -> int:
    """Return the largest body, in bytes.

    Waitress stores a body on the disk before the app checks the client's key. So the limit is lower when
    other machines can reach the server.
    """
    limit = config.max_upload + 1  # one byte more, so that the app refuses the body, with our error body
    return limit if config.is_loopback else min(limit, _LIMIT_FOR_OTHERS)

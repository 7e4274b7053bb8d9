"""Serve the app with Waitress, set up for many streams: each has a thread and a connection until it ends."""

from __future__ import annotations

import contextlib
import logging
import socket

import waitress
from flask import Flask
from waitress.task import Task, ThreadedTaskDispatcher

from app.config import Config

log = logging.getLogger(__name__)

_LIMIT_FOR_OTHERS = 1 << 30  # bytes of a body, when other machines can reach the server
_IDLE_CONNECTIONS = 1000  # that clients keep open between requests


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


def serve(app: Flask, config: Config, listener: socket.socket) -> None:
    """Serve *app* on *listener* until the process ends."""
    connections = config.threads + _IDLE_CONNECTIONS
    _allow_files(connections + config.threads)  # a stream has a second connection, to the provider
    waitress.serve(
        app,
        sockets=[listener],
        connection_limit=connections,
        asyncore_use_poll=True,  # select() cannot wait for file descriptors above 1023
        max_request_body_size=_body_limit(config),
        channel_request_lookahead=1,  # reads on during a request, so that a view learns that its client left
        clear_untrusted_proxy_headers=True,
        ident=None,
        _dispatcher=GrowingDispatcher(config.threads),
        _quiet=True,
    )


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

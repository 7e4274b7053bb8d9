"""Waitress, set up for many streams at once: each takes a thread and a connection for as long as it runs."""

from __future__ import annotations

import contextlib
import logging
import socket

import waitress
from flask import Flask
from waitress.task import Task, ThreadedTaskDispatcher

from app.config import Config

log = logging.getLogger(__name__)

_LIMIT_FOR_OTHERS = 1 << 30  # bytes
_IDLE_CONNECTIONS = 1000  # kept open by clients, beside those that are served


class GrowingDispatcher(ThreadedTaskDispatcher):
    """Waitress's threads, each started when a request finds none of them idle.

    :param limit: how many there may be
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def add_task(self, task: Task) -> None:
        """Let a thread serve *task*."""
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
    """Serve *app* on *listener* until the process is told to stop."""
    connections = config.threads + _IDLE_CONNECTIONS
    _allow_files(connections + config.threads)  # a stream has one on either side
    waitress.serve(
        app,
        sockets=[listener],
        connection_limit=connections,
        asyncore_use_poll=True,  # select() cannot wait for a file above 1023; used where there is a poll()
        max_request_body_size=_body_limit(config),
        channel_request_lookahead=1,  # lets a view see that its client left
        clear_untrusted_proxy_headers=True,
        ident=None,
        _dispatcher=GrowingDispatcher(config.threads),
        _quiet=True,
    )


def _allow_files(count: int) -> None:
    """Raise the number of files that may be open to *count*, as far as the system lets; often it is 1024."""
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
    """Return how much waitress may put on the disk of a body before the app sees who sends it."""
    limit = config.max_upload + 1  # the app itself refuses what is over, with its own error body
    return limit if config.is_loopback else min(limit, _LIMIT_FOR_OTHERS)

"""Serve the app with Waitress, set up for many streams: each has a thread and a connection until it ends.

:mod:`.listener` accepts connections and limits their number. :mod:`.connection` is one client: what it must
do in which time. :mod:`.serving` is the part of it that runs in the threads, which :mod:`.dispatcher` starts
and ends. :mod:`.request` reads its requests: a large body only after :mod:`app.security` has seen the head.
:mod:`.head` refuses heads that two servers could read in two ways. :mod:`.answer` writes the answers,
:mod:`.refusals` holds those of the server itself. :mod:`.files` allows enough open files. :mod:`.running`
serves until the process is being stopped. :mod:`.workers` lets several processes serve one port.
"""

from __future__ import annotations

import socket
import sys

from flask import Flask
from waitress.adjustments import Adjustments

from app.config import Config
from app.server.dispatcher import GrowingDispatcher
from app.server.files import allow_files
from app.server.listener import Listener
from app.server.running import run
from app.server.workers import Worker, start_workers

__all__ = ["Worker", "make_listener", "run", "start_workers"]

_LARGEST_HEAD = 32_768  # bytes


def make_listener(app: Flask, config: Config, sock: socket.socket, worker: Worker | None = None) -> Listener:
    """Return the server of *app* on *sock*; its clients wait until it runs.

    :param worker: this process, if several serve *sock*
    """
    adjustments = Adjustments(
        sockets=[sock],
        connection_limit=allow_files(config.connections, config.threads),
        asyncore_use_poll=True,  # select() cannot wait for file descriptors above 1023
        recv_bytes=65_536,
        max_request_header_size=_LARGEST_HEAD,
        max_request_body_size=sys.maxsize,  # the limits of the views apply
        clear_untrusted_proxy_headers=False,  # app.security wants to see them; nothing believes them
        server_name="unknown.invalid",  # the host of a request that names none
        ident=None,
    )
    return Listener(app, config, sock, adjustments, GrowingDispatcher(config.threads), worker)

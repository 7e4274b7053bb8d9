"""A request to a runner; its connection is closed when the client disconnects.

llama.cpp stops generating when its connection is closed, also while it reads a long prompt and has
nothing to write. A blocked read does not notice that the client disconnects, so one thread watches
all clients and shuts down the runner's socket, which ends the read.
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from app.engine.gojson import dumps
from app.engine.runners.scheduler import ClientLeftError, RunnerDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.engine.gojson import Object
    from app.engine.runners.child import Runner

log = logging.getLogger(__name__)

DIED = "an error was encountered while running the model: unexpected EOF"

_POLL_SECONDS = 0.05
_READ_BYTES = 1 << 16


class Departures:
    """Watches the clients of all open requests, and stops the requests of disconnected clients."""

    def __init__(self) -> None:
        self._watched: dict[socket.socket, Callable[[], bool]] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="departures", daemon=True).start()

    @contextmanager
    def watching(self, sock: socket.socket, gone: Callable[[], bool]) -> Iterator[None]:
        """Shut *sock* down if *gone* becomes true while the block runs."""
        with self._changed:
            self._watched[sock] = gone
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched.pop(sock, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._watched:
                    self._changed.wait()
                left = [sock for sock, gone in self._watched.items() if gone()]
                for sock in left:
                    del self._watched[sock]
                    with suppress(OSError):  # the connection has ended meanwhile
                        sock.shutdown(socket.SHUT_RDWR)
                self._changed.wait(_POLL_SECONDS)


class Answer:
    """A runner's answer, whose body is still to be read."""

    def __init__(self, response: http.client.HTTPResponse, runner: Runner, gone: Callable[[], bool]) -> None:
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "application/json")
        self._response = response
        self._runner = runner
        self._gone = gone

    def parts(self) -> Iterator[bytes]:
        """Yield the body in parts, each as soon as it comes.

        :raises RunnerDiedError: when the body is cut
        :raises ClientLeftError: when the client disconnects
        """
        try:
            while part := self._read():
                yield part
        except GeneratorExit:
            log.info("stopped: client left")
            raise

    def read(self) -> bytes:
        """Read the whole body; raises as `parts`."""
        return b"".join(self.parts())

    def _read(self) -> bytes:
        with _faults(self._runner, self._gone):
            part = self._response.read1(_READ_BYTES)
            if not part and self._response.length:  # read1 does not notice a short body
                raise http.client.IncompleteRead(b"")
            return part


@contextmanager
def _faults(runner: Runner, gone: Callable[[], bool]) -> Iterator[None]:
    """Turn a broken connection into ClientLeftError or RunnerDiedError."""
    try:
        yield
    except (OSError, http.client.HTTPException) as exc:
        if gone():
            log.info("stopped: client left")
            raise ClientLeftError from exc
        runner.wait_for_exit()  # its sockets close a moment before the process ends
        raise RunnerDiedError from exc


@contextmanager
def post(
    runner: Runner, path: str, body: Object, departures: Departures, gone: Callable[[], bool]
) -> Iterator[Answer]:
    """Send *body* to the runner and wait for the head of its answer.

    :raises RunnerDiedError: when the connection breaks before
    :raises ClientLeftError: when the client disconnects before
    """
    connection = http.client.HTTPConnection(runner.host, runner.port)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {runner.api_key}"}
    try:
        with _faults(runner, gone):
            connection.connect()
        with departures.watching(connection.sock, gone):
            with _faults(runner, gone):
                connection.request("POST", path, dumps(body), headers)
                response = connection.getresponse()
            try:
                yield Answer(response, runner, gone)
            finally:
                response.close()
    finally:
        connection.close()

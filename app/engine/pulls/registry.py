"""The registry protocol: fetch a manifest, fetch a blob, resume a blob that was fetched in part.

``GET /v2/<namespace>/<model>/manifests/<tag>`` and ``GET /v2/<namespace>/<model>/blobs/<digest>``;
the second may redirect to another server. The messages of failures are Ollama's.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions

from app.engine import VERSION
from app.engine.pulls.transfer import CancelledError, PullError
from app.manifest import MANIFEST_TYPE, CorruptManifestError, Manifest
from app.redirects import RedirectRefusedError, RegistrySession, follow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from urllib3.connection import HTTPConnection

    from app.manifest import Layer
    from app.model_name import ModelName

TRIES = 6
_BACKOFF_SECONDS = 0.1  # doubled after each try; all waits together take 6 s
_TIMEOUT = (10.0, 30.0)  # seconds: to connect, and between two reads
_READ_BYTES = 1 << 18
_HEAD_SECONDS = 60.0  # for the head of an answer, with all redirects
_MANIFEST_SECONDS = 60.0
_MAX_MANIFEST = 4 << 20
_MAX_LAYERS = 1000
_MAX_TEXT = 1000  # bytes of what a registry says about its failure


class CutError(Exception):
    """The transfer broke off; another try may succeed."""


class Registry:
    """The registry of one model."""

    def __init__(self, name: ModelName, *, insecure: bool) -> None:
        scheme = "http" if insecure else "https"
        self._url = f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}"
        self._tag = name.tag
        self._session = RegistrySession(opened=self._opened)
        self._public = RegistrySession(public=True, opened=self._opened)
        for session in (self._session, self._public):
            session.headers["User-Agent"] = f"ollama/{VERSION}"
            session.headers["Accept-Encoding"] = "identity"
        self._connections: list[HTTPConnection] = []
        self._response: requests.Response | None = None

    def interrupt(self) -> None:
        """End a read that another thread waits for, also if it waits for the head of an answer."""
        for connection in self._connections:
            with suppress(OSError, AttributeError):  # it is closed
                connection.sock.shutdown(socket.SHUT_RDWR)
        response = self._response
        if response is not None:  # over a proxy, there is no other way to its connection
            with suppress(OSError, ValueError, RuntimeError):  # the response has ended meanwhile
                response.raw.shutdown()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
        self._public.close()

    def _opened(self, connection: HTTPConnection) -> None:
        in_use = [former for former in self._connections if former.sock is not None]
        self._connections = [*in_use, connection]

    def manifest(self) -> Manifest:
        """Fetch the manifest.

        :raises PullError: when the registry has none, sends a corrupt one, or cannot be reached
        """
        url = f"{self._url}/manifests/{self._tag}"
        try:
            with self._get(url, {"Accept": MANIFEST_TYPE}) as response, self._within(_MANIFEST_SECONDS):
                raw = _read(response, _MAX_MANIFEST)
        except RedirectRefusedError as exc:
            raise PullError(f"pull model manifest: {exc}") from exc
        except (requests.RequestException, urllib3.exceptions.HTTPError) as exc:
            raise PullError(f'pull model manifest: Get "{url}": {reason(exc)}') from exc
        if response.status_code == requests.codes.not_found:
            raise PullError("pull model manifest: file does not exist")
        if not response.ok:
            text = raw[:_MAX_TEXT].decode("utf-8", "replace")
            raise PullError(f"pull model manifest: {response.status_code}: {text}")
        try:
            manifest = Manifest.parse(raw)
        except CorruptManifestError as exc:
            raise PullError(f"pull model manifest: {exc}") from exc
        if len(manifest.layers) > _MAX_LAYERS:
            raise PullError(f"pull model manifest: it has more than {_MAX_LAYERS} layers")
        return manifest

    def fetch(
        self, layer: Layer, partial: Path, cancelled: threading.Event, grew: Callable[[int], None]
    ) -> None:
        """Append the missing bytes of *layer* to *partial*; call *grew* with each new length of the file.

        :raises PullError: when the registry refuses, or breaks off TRIES times without a new byte
        :raises CancelledError: when *cancelled* is set
        """
        failures, length = 0, _length(partial)
        while length < layer.size or not partial.exists():
            try:
                self._fetch_rest(layer, partial, cancelled, grew)
            except CutError as exc:
                progress = _length(partial) > length
                failures = 1 if progress else failures + 1
                if failures >= TRIES:
                    raise PullError(f"max retries exceeded: {exc}") from exc
                if cancelled.wait(_BACKOFF_SECONDS * 2**failures):
                    raise CancelledError from exc
            length = _length(partial)

    def _fetch_rest(
        self, layer: Layer, partial: Path, cancelled: threading.Event, grew: Callable[[int], None]
    ) -> None:
        length = _length(partial)
        headers = {"Range": f"bytes={length}-"} if length else {}
        with _cuts(), self._get(f"{self._url}/blobs/{layer.digest}", headers) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                partial.unlink()
                raise PullError(f"{layer.digest} is shorter than its manifest says")
            _check_blob(response)
            resumed = response.status_code == requests.codes.partial_content
            with partial.open("ab" if resumed else "wb") as file:  # 200: the registry ignored Range
                length = file.tell()
                while chunk := response.raw.read1(_READ_BYTES):
                    if cancelled.is_set():
                        raise CancelledError
                    length += len(chunk)
                    if length > layer.size:
                        partial.unlink()
                        raise PullError(f"{layer.digest} is longer than its manifest says")
                    _write(file, chunk)
                    grew(length)
        if length < layer.size:
            raise CutError("unexpected EOF")

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        options: dict[str, Any] = {"headers": headers, "stream": True, "timeout": _TIMEOUT}
        with self._within(_HEAD_SECONDS):
            first = self._session.get(url, allow_redirects=False, **options)
            response = follow(first, self._session, self._public, **options)
        self._response = response
        return response

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Interrupt the block when it takes longer: a read gets new time with each byte."""
        timer = threading.Timer(seconds, self.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _read(response: requests.Response, limit: int) -> bytes:
    """Read a body.

    :raises PullError: when it is longer than *limit* bytes
    """
    parts, size = [], 0
    while chunk := response.raw.read1(_READ_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise PullError(f"pull model manifest: it is longer than {limit} bytes")
    return b"".join(parts)


def _length(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _check_blob(response: requests.Response) -> None:
    """Raise PullError for a final failure, CutError where another try may succeed."""
    if response.ok:
        return
    if response.status_code == requests.codes.not_found:
        raise PullError("file does not exist")
    text = response.raw.read1(_MAX_TEXT).decode("utf-8", "replace")
    failure = f"{response.status_code}: {text}"
    if response.status_code >= requests.codes.server_error:
        raise CutError(failure)
    raise PullError(failure)


@contextmanager
def _cuts() -> Iterator[None]:
    """Turn the exceptions of a broken connection into CutError, and a refused redirect into PullError."""
    try:
        yield
    except RedirectRefusedError as exc:
        raise PullError(str(exc)) from exc
    except (requests.RequestException, urllib3.exceptions.HTTPError) as exc:
        raise CutError(reason(exc)) from exc


def _write(file: Any, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()  # so that a full disk raises here, and the file has the length that is reported
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise PullError(f"write {file.name}: no space left on device") from exc
        raise PullError(f"write {file.name}: {exc.strerror}") from exc


def reason(exc: BaseException) -> str:
    """Return the message of Go's net package for a failure of the network."""
    for cause in _causes(exc):
        if isinstance(cause, urllib3.exceptions.NameResolutionError):
            host = getattr(cause.conn, "host", "")
            return f"dial tcp: lookup {host}: no such host"
        if isinstance(cause, ConnectionRefusedError):
            return f"{_dial(exc)}connect: connection refused"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"tls: failed to verify certificate: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "tls: first record does not look like a TLS handshake"
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            continue  # a subclass of TimeoutError; its cause says what happened
        if isinstance(cause, (socket.timeout, urllib3.exceptions.TimeoutError)):
            return "i/o timeout"
    return "unexpected EOF"


def _dial(exc: BaseException) -> str:
    for cause in _causes(exc):
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return f"dial tcp {cause.conn.host}:{cause.conn.port}: "
    return ""


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        nested = getattr(exc, "reason", None) or (exc.args[0] if exc.args else None)
        cause = exc.__cause__ or exc.__context__
        exc = nested if isinstance(nested, BaseException) else cause

"""Send requests to an Ollama server, check its answers, and turn failures into our errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any

import requests
from marshmallow import Schema, ValidationError

from app.config import Timeouts
from app.errors import ServiceError, UpstreamError
from app.schemas.pulls import PullPartSchema
from app.services.providers import Provider, start_hint
from app.upstream.failures import clean, cut_off, invalid_response, rejection
from app.upstream.json import parse
from app.upstream.limits import LINE_LIMIT, RAISE_LIMIT, Lines
from app.upstream.readiness import Readiness
from app.upstream.reading import read
from app.upstream.session import UpstreamSession, parts, translated
from app.upstream.threaded import open_in_thread, within

Json = dict[str, Any]

_ERROR_LIMIT = 1_000_000  # bytes


class OllamaApi:
    """Requests to one Ollama server.

    :param session: its connections are shared by all requests; the caller closes it
    :param provider: tells the server's address and API key
    :param timeouts: how long to wait for the server
    :param readiness: whether the server is being started; None not to wait for that
    """

    def __init__(
        self,
        session: UpstreamSession,
        provider: Provider,
        timeouts: Timeouts,
        readiness: Readiness | None = None,
    ) -> None:
        self._session = session
        self.provider = provider
        self._timeouts = timeouts
        self._readiness = readiness

    @property
    def name(self) -> str:
        """The provider's name, for messages."""
        return self.provider.name

    @property
    def is_supervised(self) -> bool:
        """Whether this program starts the server again when it dies."""
        return self._readiness is not None and self._readiness.supervises(self.provider.native_url)

    def _call(self, method: str, path: str, *, seconds: float | None = None, **sent: Any) -> Json:
        """Send a request and return the JSON object in its answer.

        :param seconds: how long the whole call may take; None for ``list`` of the timeouts
        """
        answer = _parsed(self._whole(method, path, seconds or self._timeouts.list, **sent))
        if not isinstance(answer, dict):
            raise invalid_response(self.name, "it is not a JSON object")
        return answer

    def _do(self, method: str, path: str, **sent: Any) -> None:
        """Send a request whose answer has no body."""
        self._whole(method, path, self._timeouts.list, **sent)

    def _whole(self, method: str, path: str, seconds: float, *, uploads: bool = False, **sent: Any) -> bytes:
        """Send a request and return the body of its answer.

        :param seconds: how long the whole call may take; with *uploads*, how long after the request was sent
        """
        self._wait_for_start()  # here and not in the call, whose seconds are those of a server that runs

        def call() -> bytes:
            return b"".join(parts(self._request(method, path, seconds, **sent), LINE_LIMIT))

        with self.translated():
            return within(seconds, call, uploads=uploads)

    def _lines(
        self, path: str, body: Json, failed: Callable[[str], UpstreamError]
    ) -> Generator[Json | None, None, None]:
        """Post *body*; yield each line of progress, and None after each read or tick without a line.

        :class:`~app.schemas.pulls.PullPartSchema` loads the lines. Closing the generator closes the
        connection.

        :param failed: makes our error from the text of an ``error`` line
        :raises UpstreamIncomplete: when the stream ends without its ``success``
        """
        timeouts = self._timeouts
        lines, found = Lines(), 0
        chunks = read(
            open_in_thread(lambda: self._chunks(path, body)),
            first_byte=timeouts.first_byte,
            idle=timeouts.idle,
            progress=lambda: found,
        )
        try:
            with self.translated():
                for data in chunks:
                    complete = lines.feed(data)
                    if not complete:
                        yield None
                    for line in complete:
                        part = self._part(line, failed)
                        found += 1
                        yield part
                        if part["status"] == "success":
                            return
            rest = lines.end()
            if not rest or self._part(rest, failed)["status"] != "success":
                raise cut_off(self.name)
        finally:
            chunks.close()

    def _chunks(self, path: str, body: Json) -> Generator[bytes, None, None]:
        """Post *body* and return the bytes of the answer; this and each of their steps may block."""
        # The answer may be ended by closing its connection, which must not hit a later request.
        headers = {"Connection": "close"}
        silence = max(self._timeouts.first_byte, self._timeouts.idle)
        self._wait_for_start()
        response = self._request("POST", path, silence, headers=headers, json=body)
        return parts(response, self._session.max_answer, RAISE_LIMIT)

    def _part(self, line: bytes, failed: Callable[[str], UpstreamError]) -> Json:
        try:
            part = parse(line)
        except ValueError as exc:
            raise invalid_response(self.name, "a line of its progress is not JSON") from exc
        if isinstance(part, dict) and "error" in part:
            raise failed(clean(part["error"], self.provider.api_key))
        loaded: Json = self._load(PullPartSchema(), part)
        return loaded

    def _wait_for_start(self) -> None:
        """Wait until the server answers, if this program is just starting it."""
        if self._readiness and not self._readiness.is_ready.is_set():
            self._readiness.wait(self.provider.native_url, self._timeouts.first_byte)

    def _request(
        self,
        method: str,
        path: str,
        silence: float,
        *,
        headers: Mapping[str, str] | None = None,
        sending: float | None = None,
        **sent: Any,
    ) -> requests.Response:
        """Return the open answer to a request after checking its status; the caller closes it.

        :param silence: seconds that one read may take
        :param sending: seconds that it may take to send a part of the request, for which the library has no
            timeout but that for connecting; None for ``connect``
        """
        key = self.provider.api_key
        with self.translated():
            response = self._session.request(
                method,
                f"{self.provider.native_url}{path}",
                headers={**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})},
                timeout=(sending or self._timeouts.connect, silence),
                allow_redirects=False,
                stream=True,
                **sent,
            )
            if response.status_code in {200, 201}:
                return response
            with closing(response):
                raise self._rejection(response)

    def translated(self) -> AbstractContextManager[None]:
        """Turn the exceptions of the library requests into our errors."""
        return translated(self.name, self.provider.native_url, partial(start_hint, self.provider))

    def _rejection(self, response: requests.Response) -> ServiceError:
        """Return the error for an answer whose status is no success; read its body."""
        is_redirect = response.status_code < 400
        answer = None if is_redirect else _parsed(b"".join(parts(response, _ERROR_LIMIT)))
        message = answer.get("error") if isinstance(answer, dict) else None
        # Ollama answers a bare 403 to a request whose Host header it does not allow.
        if response.status_code == 403 and not message:
            return UpstreamError(
                f"{self.name} at {self.provider.native_url} refuses this host name.",
                hint="Use localhost or an IP address in base_url, or allow it with OLLAMA_ORIGINS.",
            )
        if message is None and response.status_code != 401 and response.request.method != "HEAD":
            return invalid_response(self.name, f"HTTP {response.status_code} that is not Ollama's")
        return rejection(self.name, response.status_code, clean(message, self.provider.api_key))

    def _load(self, schema: Schema, answer: Any) -> Any:
        """Load *answer* with *schema*.

        :raises InvalidUpstreamResponse: when the schema refuses it
        """
        try:
            return schema.load(answer)
        except ValidationError as exc:
            raise invalid_response(self.name, "a field is missing or of the wrong type") from exc


def _parsed(body: bytes) -> Any:
    """Return the JSON value of *body*; None when it is not JSON."""
    try:
        return parse(body)
    except ValueError:
        return None

"""Send requests to an Ollama server, check its answers, and turn failures into our errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any

import requests
from marshmallow import Schema, ValidationError

from app.config import Timeouts
from app.errors import ServiceError, UpstreamError
from app.schemas.pulls import PullPartSchema
from app.services.providers import Provider, start_hint
from app.upstream.failures import clean, cut_off, invalid_response, rejection
from app.upstream.readiness import Readiness
from app.upstream.reading import Body, Register, ThreadedBody, announcing, read
from app.upstream.session import translated

Json = dict[str, Any]


class OllamaApi:
    """Requests to one Ollama server.

    :param session: its connections are shared by all requests; the caller closes it
    :param provider: tells the server's address and API key
    :param timeouts: how long to wait for the server
    :param readiness: whether the server is being started; None not to wait for that
    """

    def __init__(
        self,
        session: requests.Session,
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

    def _call(self, method: str, path: str, **kwargs: Any) -> Json:
        """Send a request and return the JSON object in its answer."""
        with self._open(method, path, **kwargs) as response:
            answer = self._parsed(response)
        if not isinstance(answer, dict):
            raise invalid_response(self.name, "it is not a JSON object")
        return answer

    def _do(self, method: str, path: str, **kwargs: Any) -> None:
        """Send a request whose answer has no body."""
        with self._open(method, path, **kwargs):
            pass

    def _lines(
        self, path: str, body: Json, failed: Callable[[str], UpstreamError]
    ) -> Generator[Json | None, None, None]:
        """Post *body*; yield each line of progress, and None after each tick without a line.

        :class:`~app.schemas.pulls.PullPartSchema` loads the lines. Closing the generator closes the
        connection.

        :param failed: makes our error from the text of an ``error`` line
        :raises UpstreamIncomplete: when the stream ends without its ``success``
        """
        timeouts = self._timeouts
        chunks = read(
            lambda register: self._body(path, body, register),
            first_byte=timeouts.first_byte,
            idle=timeouts.idle,
        )
        rest = b""
        try:
            with self.translated():
                for data in chunks:
                    if not data:
                        yield None
                    *lines, rest = (rest + data).split(b"\n")  # bytes: str would cut at U+2028
                    for line in lines:
                        part = self._part(line, failed)
                        yield part
                        if part["status"] == "success":
                            return
            if not rest or self._part(rest, failed)["status"] != "success":
                raise cut_off(self.name)
        finally:
            chunks.close()

    def _body(self, path: str, body: Json, register: Register) -> Body:
        """Post *body* and return the open answer.

        :param register: is called with the connection before the server answers
        """
        timeout = (self._timeouts.connect, max(self._timeouts.first_byte, self._timeouts.idle))
        with announcing(register):
            response = self._request("POST", path, json=body, stream=True, timeout=timeout)
        connection = response.raw.connection
        chunks = response.raw.stream(65536, decode_content=True)
        return ThreadedBody(chunks, connection.sock if connection else None, response.close)

    def _part(self, line: bytes, failed: Callable[[str], UpstreamError]) -> Json:
        try:
            part = json.loads(line)
        except ValueError as exc:
            raise invalid_response(self.name, "a line of its progress is not JSON") from exc
        if isinstance(part, dict) and "error" in part:
            raise failed(clean(part["error"], self.provider.api_key))
        loaded: Json = self._load(PullPartSchema(), part)
        return loaded

    @contextmanager
    def _open(self, method: str, path: str, **kwargs: Any) -> Iterator[requests.Response]:
        """Yield the answer to a request after checking its status; close it at the end."""
        response = self._request(method, path, **kwargs)
        try:
            yield response
        finally:
            response.close()

    def _request(
        self, method: str, path: str, timeout: tuple[float, float] | None = None, **kwargs: Any
    ) -> requests.Response:
        """Return the answer to a request after checking its status; the caller closes it."""
        url = f"{self.provider.native_url}{path}"
        timeout = timeout or (self._timeouts.connect, self._timeouts.list)
        if self._readiness and not self._readiness.is_ready.is_set():
            self._readiness.wait(self.provider.native_url, self._timeouts.first_byte)
        key = self.provider.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A stream may be ended by closing its connection, which must not hit a later request.
        if kwargs.get("stream"):
            headers["Connection"] = "close"
        with self.translated():
            response = self._session.request(
                method, url, timeout=timeout, headers=headers, allow_redirects=False, **kwargs
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
        answer = self._parsed(response)
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

    def _parsed(self, response: requests.Response) -> Any:
        """Return the JSON value of the body; None when the body is not JSON."""
        with self.translated():
            body = response.content
        try:
            return json.loads(body)
        except ValueError:
            return None

    def _load(self, schema: Schema, answer: Any) -> Any:
        """Load *answer* with *schema*.

        :raises InvalidUpstreamResponse: when the schema refuses it
        """
        try:
            return schema.load(answer)
        except ValidationError as exc:
            raise invalid_response(self.name, "a field is missing or of the wrong type") from exc

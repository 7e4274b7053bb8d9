"""Ollama's own API: the models that are installed, and their downloads."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import requests
from marshmallow import Schema, ValidationError

from app.errors import InvalidModelName, ModelNotFound, NotFound, PullFailed, UpstreamError
from app.model_name import ModelName
from app.schemas.models import ModelListSchema
from app.schemas.pulls import PullPartSchema
from app.services.providers import Provider
from app.services.reader import read
from app.services.upstream import clean, cut_off, invalid_response, reject, translated
from app.settings import Timeouts

Json = dict[str, Any]


class OllamaService:
    """One Ollama server.

    :param session: kept by the caller, for its connections
    :param provider: where the server is
    :param timeouts: how long to wait for it
    """

    def __init__(self, session: requests.Session, provider: Provider, timeouts: Timeouts) -> None:
        self._session = session
        self._provider = provider
        self._timeouts = timeouts

    @property
    def name(self) -> str:
        """The name that messages use."""
        return self._provider.name

    def version(self) -> str:
        """Return the server's version (``GET /api/version``)."""
        answer = self._get("/api/version")
        version = answer.get("version")
        if not isinstance(version, str):
            raise invalid_response(self.name, "no version in it")
        return version

    def list(self) -> Json:
        """Return the installed models, newest first (``GET /api/tags``)."""
        return self._load(ModelListSchema(), self._get("/api/tags"))

    def show(self, model: str) -> Json:
        """Return what Ollama knows of *model* (``POST /api/show``).

        :raises ModelNotFound: when it is not installed
        """
        try:
            with self._open("POST", "/api/show", json={"model": model}) as response:
                return self._json(response)
        except NotFound as exc:
            raise self.model_not_found(model) from exc

    def pull(self, model: str, *, insecure: bool = False) -> Generator[Json | None, None, None]:
        """Download *model*, yielding each line of progress, and None in each silent half second.

        The lines are as :class:`~app.schemas.pulls.PullPartSchema` loads them (``POST /api/pull``). Closing
        the generator hangs up; Ollama keeps what it has, and the next pull goes on from there.

        :raises PullFailed: when Ollama says so, also in mid-stream
        :raises UpstreamIncomplete: when the stream ends without its `success`
        """
        body = {"model": model, "insecure": insecure, "stream": True}
        timeouts = self._timeouts
        timeout = (timeouts.connect, max(timeouts.first_byte, timeouts.idle))
        chunks = read(
            lambda _register: LineBody(
                self._request("POST", "/api/pull", json=body, stream=True, timeout=timeout)
            ),
            first_byte=timeouts.first_byte,
            idle=timeouts.idle,
        )
        rest = b""
        try:
            with self._translated():
                for data in chunks:
                    if not data:
                        yield None
                    *lines, rest = (rest + data).split(b"\n")  # bytes: str would cut at U+2028
                    for line in lines:
                        part = self._pull_part(model, line)
                        yield part
                        if part["status"] == "success":
                            return
            if not rest or self._pull_part(model, rest)["status"] != "success":
                raise cut_off(self.name)
        finally:
            chunks.close()

    def model_not_found(self, model: str) -> ModelNotFound:
        """Say that *model* is not installed, and what is."""
        available = [m["name"] for m in self.list()["models"]]
        there = f"Installed: {', '.join(available[:20])}." if available else "None is installed yet."
        return ModelNotFound(
            f"The model '{model}' is not installed on {self.name}.",
            hint=f'{there} Pull it: POST /api/providers/ollama/pull {{"model": "{model}"}}',
            details={"model": model, "available": available},
        )

    def first_chat_model(self) -> str:
        """Return the newest installed model that can chat.

        :raises ModelNotFound: when there is none
        """
        models = self.list()["models"]
        for model in models:
            if "completion" in model.get("capabilities", ["completion"]):
                name: str = model["name"]
                return name
        raise ModelNotFound(
            f"{self.name} has no model that can chat.",
            hint='Pull one: POST /api/providers/ollama/pull {"model": "llama3.2:1b"}',
            details={"available": [model["name"] for model in models]},
        )

    def _pull_part(self, model: str, line: bytes) -> Json:
        try:
            part = json.loads(line)
        except ValueError as exc:
            raise invalid_response(self.name, "a line of its progress is not JSON") from exc
        if isinstance(part, dict) and "error" in part:
            raise pull_failed(model, clean(part["error"], self._provider.api_key))
        return self._load(PullPartSchema(), part)

    def _get(self, path: str) -> Json:
        with self._open("GET", path) as response:
            return self._json(response)

    @contextmanager
    def _open(self, method: str, path: str, **kwargs: Any) -> Iterator[requests.Response]:
        """Yield the answer of a request, its status checked; close it in the end."""
        response = self._request(method, path, **kwargs)
        try:
            yield response
        finally:
            response.close()

    def _request(
        self, method: str, path: str, timeout: tuple[float, float] | None = None, **kwargs: Any
    ) -> requests.Response:
        """Return the answer of a request, its status checked; the caller closes it."""
        url = f"{self._provider.native_url}{path}"
        timeout = timeout or (self._timeouts.connect, self._timeouts.list)
        key = self._provider.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with self._translated():
            response = self._session.request(
                method, url, timeout=timeout, headers=headers, allow_redirects=False, **kwargs
            )
        try:
            if response.status_code != 200:
                self._refuse(response)
        except BaseException:
            response.close()
            raise
        return response

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.name, self._provider.native_url)

    def _refuse(self, response: requests.Response) -> None:
        """Raise the error for an answer that is no success; its body is read before it is closed."""
        answer = self._parsed(response)
        message = answer.get("error") if isinstance(answer, dict) else None
        if response.status_code == 403 and not message:
            raise UpstreamError(
                f"{self.name} at {self._provider.native_url} refuses this host name.",
                hint="Use localhost or an IP address in base_url, or allow it with OLLAMA_ORIGINS.",
            )
        if message is None and response.status_code != 401:
            raise invalid_response(self.name, f"HTTP {response.status_code} that is not Ollama's")
        reject(self.name, response.status_code, clean(message, self._provider.api_key))

    def _json(self, response: requests.Response) -> Json:
        answer = self._parsed(response)
        if not isinstance(answer, dict):
            raise invalid_response(self.name, "it is not a JSON object")
        return answer

    def _parsed(self, response: requests.Response) -> Any:
        """Return the body's JSON value; None where it is not JSON."""
        with self._translated():
            body = response.content
        try:
            return json.loads(body)
        except ValueError:
            return None

    def _load(self, schema: Schema, answer: Any) -> Json:
        try:
            loaded: Json = schema.load(answer)
        except ValidationError as exc:
            raise invalid_response(self.name, "a field is missing or of the wrong type") from exc
        return loaded


class LineBody:
    """The open answer of a request; see :class:`app.services.reader.Body`."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        """Yield what each read gave."""
        yield from self._response.raw.stream(65536, decode_content=True)

    def connection(self) -> socket.socket | None:
        """Return the connection."""
        connection = self._response.raw.connection
        return connection.sock if connection else None

    def close(self) -> None:
        """Close the connection, or give it back."""
        self._response.close()


def check_name(model: str) -> ModelName:
    """Return *model* parsed: nothing but a name that Ollama accepts is ever sent to it.

    :raises InvalidModelName: for any other
    """
    try:
        return ModelName.parse(model)
    except ValueError as exc:
        raise InvalidModelName(
            str(exc),
            hint="A name looks like llama3.2:1b or hf.co/user/repo:Q4_K_M.",
            details={"model": [str(exc)]},
        ) from exc


def pull_failed(model: str, message: str) -> PullFailed:
    """Say why Ollama could not pull *model*, and what to do about it."""
    if "file does not exist" in message:
        hint = "There is no such model: check the name and tag at https://ollama.com/library"
    elif "no space left" in message:
        hint = "Free some disk space, then pull again: what was downloaded is kept."
    elif "dial tcp" in message or "lookup" in message:
        hint = "The registry cannot be reached: check the network, then pull again."
    elif "TLS handshake" in message:
        hint = 'The registry speaks plain HTTP: for one on this machine, add "insecure": true.'
    else:
        hint = "Pull again: what was downloaded is kept."
    return PullFailed(
        f"The model '{model}' could not be pulled: {message}",
        hint=hint,
        details={"model": model, "upstream_error": message},
    )

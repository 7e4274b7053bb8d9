"""Ollama's native API: list, show, load, copy, create, pull and delete models, and chat."""

from __future__ import annotations

from collections.abc import Generator
from typing import IO

from app.config import Timeouts
from app.errors import (
    CreateFailed,
    ModelNotFound,
    NotFound,
    PullFailed,
    UpstreamRejected,
)
from app.schemas.models import ModelList, ModelListSchema
from app.schemas.running import RunningList, RunningListSchema
from app.schemas.show import ShownModel, ShowSchema
from app.services.ollama.api import Json, OllamaApi
from app.services.providers import Provider, ProviderStore
from app.services.settings import SettingsStore
from app.upstream.failures import invalid_response
from app.upstream.json import has_half
from app.upstream.readiness import Readiness
from app.upstream.session import UpstreamSession

_VERSION_LENGTH = 100  # characters


class OllamaService(OllamaApi):
    """One Ollama server."""

    def version(self) -> str:
        """Return the server's version (``GET /api/version``)."""
        version = self._call("GET", "/api/version").get("version")
        if not isinstance(version, str) or len(version) > _VERSION_LENGTH or has_half(version):
            raise invalid_response(self.name, "no version in it")
        return version

    def list(self) -> ModelList:
        """Return the installed models, the newest first (``GET /api/tags``)."""
        loaded: ModelList = self._load(ModelListSchema(), self._call("GET", "/api/tags"))
        return loaded

    def ps(self) -> RunningList:
        """Return the models in memory (``GET /api/ps``)."""
        loaded: RunningList = self._load(RunningListSchema(), self._call("GET", "/api/ps"))
        return loaded

    def show(self, model: str) -> ShownModel:
        """Return the details of *model* (``POST /api/show``).

        :raises ModelNotFound: when it is not installed
        """
        try:
            answer = self._call("POST", "/api/show", json={"model": model})
        except NotFound as exc:
            raise self.model_not_found(model) from exc
        loaded: ShownModel = self._load(ShowSchema(), answer)
        return loaded

    def pull(self, model: str, *, insecure: bool = False) -> Generator[Json | None, None, None]:
        """Pull *model* (``POST /api/pull``).

        Yield each line of progress, and None after each half second without a line. Closing the generator
        closes the connection, which stops the pull: Ollama keeps the bytes, and the next pull continues.

        :raises PullFailed: when Ollama sends an error, also in the middle of the stream
        :raises UpstreamIncomplete: when the stream ends without its `success`
        """
        body = {"model": model, "insecure": insecure, "stream": True}
        return self._lines("/api/pull", body, lambda message: pull_failed(model, message))

    def create(self, model: str, **values: object) -> Generator[Json | None, None, None]:
        """Create *model* (``POST /api/create``); yield its progress as :meth:`pull` does.

        :param values: ``from`` or ``files``, and the model's ``system``, ``template``, ``parameters`` ...
        :raises CreateFailed: when Ollama sends an error, also in the middle of the stream
        :raises UpstreamIncomplete: when the stream ends without its `success`
        """
        body = {"model": model, **values, "stream": True}
        return self._lines("/api/create", body, lambda message: create_failed(model, message))

    def chat(self, request: Json) -> Generator[bytes, None, None]:
        """Return the bytes of the answer to a chat (``POST /api/chat``); this and their steps may block.

        :raises ModelNotFound: when the model is not installed
        """
        try:
            return self._chunks("/api/chat", request)
        except NotFound as exc:
            raise ModelNotFound(f"The model '{request['model']}' is not installed on {self.name}.") from exc

    def copy(self, source: str, destination: str) -> None:
        """Give *source* a second name (``POST /api/copy``).

        :raises ModelNotFound: when it is not installed
        """
        try:
            self._do("POST", "/api/copy", json={"source": source, "destination": destination})
        except NotFound as exc:
            raise self.model_not_found(source) from exc

    def delete(self, model: str) -> None:
        """Delete *model*, and the layers that no other model uses (``DELETE /api/delete``).

        :raises ModelNotFound: when it is not installed
        """
        try:
            self._do("DELETE", "/api/delete", json={"model": model})
        except NotFound as exc:
            raise self.model_not_found(model) from exc

    def load(self, model: str, keep_alive: float | str | None = None) -> None:
        """Load *model* into memory (``POST /api/generate`` without a prompt).

        :param keep_alive: seconds or a Go duration; negative for ever; None for Ollama's default
        :raises ModelNotFound: when it is not installed
        """
        body = {"model": model, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        seconds = self._timeouts.first_byte
        try:
            try:
                self._call("POST", "/api/generate", seconds=seconds, json=body)
            except UpstreamRejected:  # a model that only makes embeddings cannot be loaded like this
                self._call("POST", "/api/embed", seconds=seconds, json={**body, "input": ""})
        except NotFound as exc:
            raise self.model_not_found(model) from exc

    def unload(self, model: str) -> None:
        """Unload *model* from memory; a model that is answering ends its answer first.

        :raises ModelNotFound: when it is not installed
        """
        try:
            self._call("POST", "/api/generate", json={"model": model, "keep_alive": 0, "stream": False})
        except NotFound as exc:
            raise self.model_not_found(model) from exc

    def has_blob(self, digest: str) -> bool:
        """Tell whether the server has the layer *digest* (``HEAD /api/blobs/:digest``)."""
        try:
            self._do("HEAD", f"/api/blobs/{digest}")
        except NotFound:
            return False
        return True

    def push_blob(self, digest: str, file: IO[bytes]) -> None:
        """Send *file* as the layer *digest* (``POST /api/blobs/:digest``)."""
        timeouts = self._timeouts
        longest = max(timeouts.first_byte, timeouts.idle)
        path = f"/api/blobs/{digest}"
        self._whole("POST", path, longest, uploads=True, sending=timeouts.idle, data=file)

    def model_not_found(self, model: str) -> ModelNotFound:
        """Return the error for a *model* that is not installed; the error lists the installed models."""
        available = [m["name"] for m in self.list()["models"]]
        there = f"Installed: {', '.join(available[:20])}." if available else "None is installed yet."
        return ModelNotFound(
            f"The model '{model}' is not installed on {self.name}.",
            hint=f'{there} Pull it: POST /api/providers/ollama/pull {{"model": "{model}"}}',
            details={"model": model, "available": available},
        )


class OllamaServers:
    """Makes the service for each provider that is an Ollama server, with the settings in force.

    :param session: the connections to all servers
    :param readiness: whether the server that this program starts can be asked
    """

    def __init__(
        self,
        session: UpstreamSession,
        providers: ProviderStore,
        settings: SettingsStore,
        readiness: Readiness | None = None,
    ) -> None:
        self._session = session
        self._providers = providers
        self._settings = settings
        self._readiness = readiness

    def main(self, timeouts: Timeouts | None = None) -> OllamaService:
        """Return the service for the provider ``ollama``."""
        return self.of(self._providers.get("ollama"), timeouts)

    def of(self, provider: Provider, timeouts: Timeouts | None = None) -> OllamaService:
        """Return the service for *provider*.

        :param timeouts: how long to wait; None for the timeouts of the settings
        """
        return OllamaService(self._session, provider, timeouts or self._settings.timeouts, self._readiness)


def create_failed(model: str, message: str) -> CreateFailed:
    """Return the error for a *model* that Ollama could not create; *message* is Ollama's reason."""
    hint = "The installed models are unchanged."
    if "no space left" in message:
        hint = "Free some disk space, then try again."
    return CreateFailed(
        f"The model '{model}' could not be made: {message}",
        hint=hint,
        details={"model": model, "upstream_error": message},
    )


def pull_failed(model: str, message: str) -> PullFailed:
    """Return the error for a *model* that Ollama could not pull; *message* is Ollama's reason."""
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

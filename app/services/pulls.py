"""Pulls: downloads that go on whoever waits for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from typing import Any

from app.errors import RegistryNotAllowed, ServiceError, UpstreamTimeout
from app.model_name import ModelName
from app.services.ollama import OllamaService, check_name
from app.settings import is_loopback

log = logging.getLogger(__name__)

Json = dict[str, Any]
_Key = tuple[ModelName, bool]


class PullService:
    """The pulls of this process; a model that is being pulled already is joined.

    :param registries: the hosts, beside this machine's own, that models may come from
    """

    def __init__(self, registries: tuple[str, ...]) -> None:
        self._registries = registries
        self._running: dict[_Key, Future[list[Json]]] = {}
        self._lock = threading.Lock()

    def pull(self, ollama: OllamaService, model: str, *, insecure: bool, timeout: float) -> Json:
        """Pull *model* and wait for its end, *timeout* seconds at most.

        :raises RegistryNotAllowed: before anything is sent
        :raises UpstreamTimeout: when it takes longer; the pull goes on
        :raises PullFailed: with what Ollama says
        """
        name = check_name(model)
        check_registry(name.host, insecure=insecure, allowed=self._registries)
        pull = self._start(ollama, model, (name.key, insecure))
        try:
            status_log = pull.result(timeout)
        except WaitTimeout as exc:
            raise UpstreamTimeout(
                f"The pull of '{model}' takes longer than {timeout:g} seconds. It goes on in the background.",
                hint="Ask again: the same request joins it. GET /api/providers/ollama/models lists "
                "the model when it is there.",
                details={"model": model},
            ) from exc
        return {
            "success": True,
            "message": f"Model '{model}' pulled successfully",
            "model": model,
            "status_log": status_log,
        }

    def _start(self, ollama: OllamaService, model: str, key: _Key) -> Future[list[Json]]:
        with self._lock:
            if key in self._running:
                return self._running[key]
            pull: Future[list[Json]] = Future()
            self._running[key] = pull
        threading.Thread(
            target=self._run, args=(ollama, model, key, pull), name=f"pull {model}", daemon=True
        ).start()
        return pull

    def _run(self, ollama: OllamaService, model: str, key: _Key, pull: Future[list[Json]]) -> None:
        log.info("pull of %s started", model)
        try:
            status_log = compact(ollama.pull(model, insecure=key[1]))
        except BaseException as exc:  # who waits must not wait for ever for a pull that is gone
            self._forget(key)
            pull.set_exception(exc)
            if not isinstance(exc, ServiceError):
                raise
            log.warning("pull of %s failed: %s", model, exc.message)
        else:
            self._forget(key)
            pull.set_result(status_log)
            log.info("pull of %s done", model)

    def _forget(self, key: _Key) -> None:
        with self._lock:
            del self._running[key]


def compact(parts: Iterable[Json]) -> list[Json]:
    """Return the lines of a pull in order; of those of one layer, the last, where the first stood."""
    log_by_step: dict[tuple[str, str | None], Json] = {}
    for part in parts:
        log_by_step[part["status"], part["digest"]] = part
    return list(log_by_step.values())


def check_registry(host: str, *, insecure: bool, allowed: tuple[str, ...]) -> None:
    """See to it that Ollama is sent to no registry but this machine's own and the *allowed* ones.

    :raises RegistryNotAllowed: for any other, and for plain HTTP to another machine
    """
    name, colon, _port = host.rpartition(":")
    here = is_loopback(name if colon else host)
    if not here and host.lower() not in {a.lower() for a in allowed}:
        raise RegistryNotAllowed(
            f"Models may not be pulled from '{host}'.",
            hint=f"Allow it with BACKEND_ALLOWED_REGISTRIES={','.join([*allowed, host])}",
            details={"registry": host, "allowed": list(allowed)},
        )
    if insecure and not here:
        raise RegistryNotAllowed(
            f"Plain HTTP to the registry '{host}' is not allowed.",
            hint='Leave "insecure" out; it is for registries on this machine.',
            details={"registry": host},
        )

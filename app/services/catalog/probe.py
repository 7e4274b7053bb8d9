"""Test whether a provider can be reached, and say how to mend it when it cannot."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from app.config import Timeouts
from app.errors import (
    InvalidUpstreamKey,
    InvalidUpstreamResponse,
    ServiceError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.schemas.providers import ProviderFinding, ProviderTest
from app.services.ollama.service import OllamaService
from app.services.providers.openai_api import OpenAIClients
from app.services.providers.store import Provider


def check(
    provider: Provider, ollama: OllamaService, clients: OpenAIClients, timeouts: Timeouts
) -> ProviderTest:
    """Ask *provider* for its models; return what was found, also when that fails.

    ``status`` is one of :data:`app.schemas.providers.TEST_STATUSES`.
    """
    started = time.monotonic()
    try:
        if provider.is_ollama:
            found = _ollama_found(provider, ollama)
        else:
            found = _found(clients.list_models(provider, timeouts)["total"], provider)
    except ServiceError as exc:
        found = {"status": _status(exc, provider), "message": exc.message}
        if exc.hint:
            found["hint"] = exc.hint
    return {
        "provider": provider.id,
        **found,
        "latency": round(time.monotonic() - started, 3),
        "last_checked": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _ollama_found(provider: Provider, ollama: OllamaService) -> ProviderFinding:
    version = ollama.version()
    return {**_found(ollama.list()["total"], provider), "version": version}


def _found(models: int, provider: Provider) -> ProviderFinding:
    if models:
        plural = "" if models == 1 else "s"
        message = f"{provider.name} answers and has {models} model{plural}."
        return {"status": "connected", "message": message, "models": models}
    if provider.is_ollama:
        hint = 'Pull one: POST /api/providers/ollama/pull {"model": "llama3.2:1b"}'
    else:
        hint = "Load a model there."
    message = f"{provider.name} answers and has no models yet."
    return {"status": "no_models", "message": message, "hint": hint, "models": 0}


def _status(exc: ServiceError, provider: Provider) -> str:
    if isinstance(exc, UpstreamUnavailable):
        refused = exc.details.get("reason") == "connection_refused"
        return "connection_refused" if refused else "error"
    if isinstance(exc, UpstreamTimeout):
        return "timeout"
    if isinstance(exc, InvalidUpstreamKey):
        return "unauthorized"
    if isinstance(exc, InvalidUpstreamResponse) and provider.is_ollama:
        return "not_ollama"
    return "error"

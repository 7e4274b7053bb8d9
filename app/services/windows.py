"""The windows of models: how many tokens they look at, and whether a conversation fits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from app.errors import ServiceError
from app.model_name import ModelName
from app.services.ollama import OllamaService, find_model
from app.services.providers import Provider

Json = dict[str, Any]

_FRESH = 30.0  # seconds for which a window is believed
_SMALLEST = 256


class Windows:
    """The windows that models are loaded with, as Ollama tells them; asked for now and then.

    :param ollama_for: makes the service, with short timeouts: a window is good to know, not worth a wait
    """

    def __init__(self, ollama_for: Callable[[Provider], OllamaService]) -> None:
        self._ollama_for = ollama_for
        self._known: dict[tuple[str, str], tuple[float, int | None]] = {}
        self._lock = threading.Lock()

    def loaded(self, provider: Provider, model: str) -> int | None:
        """Return the window that *model* is loaded with; None where it is not, or nobody knows."""
        if not provider.is_ollama:
            return None
        key = (provider.native_url, model.lower())
        with self._lock:
            asked_at, window = self._known.get(key, (-_FRESH, None))
        if time.monotonic() - asked_at < _FRESH:
            return window
        return self.look(provider, model)[1]

    def look(self, provider: Provider, model: str) -> tuple[bool | None, int | None]:
        """Ask whether *model* is loaded, and with which window; None for what is not known."""
        is_loaded: bool | None = None
        window: int | None = None
        try:
            found = find_model(self._ollama_for(provider).ps()["models"], ModelName.parse(model))
            is_loaded, window = found is not None, found["context_length"] if found else None
        except (ServiceError, ValueError):
            pass
        with self._lock:
            self._known[provider.native_url, model.lower()] = (time.monotonic(), window)
        return is_loaded, window

    def forget(self, provider: Provider, model: str) -> None:
        """Ask anew the next time: *model* is loaded with another window now."""
        with self._lock:
            self._known.pop((provider.native_url, model.lower()), None)

    def for_request(self, provider: Provider, model: str, wanted: int | None) -> int | None:
        """Return the `num_ctx` to ask for, so that a model is loaded anew as seldom as can be.

        A window that is loaded and large enough stays; else the next power of two is asked for, so that
        requests of slightly different sizes use the same one.
        """
        loaded = self.loaded(provider, model)
        if wanted is None or (loaded and loaded >= wanted):
            return loaded
        window = _SMALLEST
        while window < wanted:
            window *= 2
        return window


def context(prompt: int, usage: Json, window: int | None, dropped: int = 0) -> Json:
    """Return how full the window is after an answer.

    :param prompt: what :func:`least_tokens` says of the messages that were sent
    :param usage: the tokens, as the provider counted them
    :param dropped: how many messages were left out before sending
    """
    seen, used = usage["prompt_tokens"], usage["total_tokens"]
    truncated: bool | None = None
    if dropped:
        truncated = True
    elif seen is not None and window is not None:
        # Ollama leaves out what does not fit and says nothing: then it saw far less than was sent.
        truncated = prompt > window or seen * 2 < prompt
    found = {"used": used, "window": window, "truncated": truncated}
    return {**found, "dropped_messages": dropped} if dropped else found


def least_tokens(messages: list[Json]) -> int:
    """Return a number of tokens that *messages* hardly stay below: one for five characters."""
    return sum(len(message["content"]) for message in messages) // 5

"""The windows of models: how many tokens they look at, and whether a conversation fits."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from app.errors import ServiceError
from app.services.chat.tokens import estimate
from app.services.ollama.names import find_model, key_of
from app.services.ollama.service import OllamaServers
from app.services.providers.store import Provider
from app.services.settings import SettingsStore

Json = dict[str, Any]

_FRESH = 30.0  # seconds for which a window is believed
_MOST = 1000  # models that are remembered
_SMALLEST = 256


@dataclass(frozen=True)
class _Known:
    at: float
    window: int | None  # None: the server does not tell
    is_seen: bool  # else it is only what was asked for


class Windows:
    """The windows that models are loaded with, as Ollama tells them; asked for now and then."""

    def __init__(self, ollamas: OllamaServers, settings: SettingsStore) -> None:
        self._ollamas = ollamas
        self._settings = settings
        self._known: dict[tuple[str, str], _Known] = {}
        self._lock = threading.Lock()

    def loaded(self, provider: Provider, model: str, *, seen: bool = False) -> int | None:
        """Return the window that *model* is loaded with; None where it is not, or nobody knows.

        :param seen: after an answer: only as the server tells it, not what it was asked for a moment ago
        """
        if not provider.is_ollama or not model:
            return None
        with self._lock:
            known = self._known.get(_key(provider, model))
        if known and time.monotonic() - known.at < _FRESH and (known.is_seen or not seen):
            return known.window
        is_loaded, window = self.look(provider, model)
        if seen and is_loaded is False:
            # It has just answered: the server lists it nowhere, and will not soon.
            self._keep(provider, model, None, is_seen=True)
        return window

    def look(self, provider: Provider, model: str) -> tuple[bool | None, int | None]:
        """Ask whether *model* is loaded, and with which window; None for what is not known."""
        try:
            ollama = self._ollamas.of(provider, self._settings.hasty_timeouts)  # not worth a wait
            found = find_model(ollama.ps()["models"], model)
        except ServiceError:
            self._keep(provider, model, None, is_seen=True)
            return None, None
        if found is None:  # it may be loaded the next moment
            return False, None
        self._keep(provider, model, found["context_length"], is_seen=True)
        return True, found["context_length"]

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
        self._keep(provider, model, window, is_seen=False)  # requests that come meanwhile ask for the same
        return window

    def _keep(self, provider: Provider, model: str, window: int | None, *, is_seen: bool) -> None:
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[_key(provider, model)] = _Known(time.monotonic(), window, is_seen)


def context(messages: list[Json], usage: Json, window: int | None, dropped: int = 0) -> Json:
    """Return how full the window is after an answer.

    :param messages: what was sent
    :param usage: the tokens, as the provider counted them
    :param dropped: how many messages were left out before sending
    """
    seen, used = usage["prompt_tokens"], usage["total_tokens"]
    if dropped:
        return {"used": used, "window": window, "truncated": True, "dropped_messages": dropped}
    return {"used": used, "window": window, "truncated": _truncated(messages, seen, window)}


def _truncated(messages: list[Json], seen: int | None, window: int | None) -> bool | None:
    """Tell whether a server that says nothing of it left out a part of *messages*; None where that is open.

    A word is a token at least: fewer tokens than words were read only where something was left out.
    """
    words = sum(len(message["content"].split()) for message in messages)
    if seen is not None and words > seen:
        return True
    if window is None or seen is None:
        return None
    if words > window:
        return True
    return False if sum(map(estimate, messages)) <= window else None


def _key(provider: Provider, model: str) -> tuple[str, str]:
    return provider.native_url, key_of(model)

"""How many tokens a model looks at, and how many of them messages and answers take."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import dataclass

from app.errors import ServiceError
from app.schemas.chat_results import ToldUsage, Usage, UsedContext
from app.schemas.messages import Message
from app.services.ollama import OllamaServers, find_model, key_of
from app.services.providers import Provider
from app.services.settings import SettingsStore

CHARS_PER_TOKEN = 3.0
"""Of ASCII text; English has about four, code and numbers fewer. Any other character counts as a token."""
_PER_MESSAGE = 8  # tokens of the template around each message
_PER_IMAGE = 1000

_FRESH = 30.0  # seconds for which a window is believed
_MOST = 1000  # models that are remembered
_SMALLEST = 256


@dataclass(frozen=True)
class _Known:
    at: float
    window: int | None  # None: the server does not tell
    is_seen: bool  # else it is only what was asked for


class ContextWindows:
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
            known = self._known.get((provider.native_url, key_of(model)))
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
            ollama = self._ollamas.of(provider, self._settings.hasty_timeouts())  # not worth a wait
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
            self._known[(provider.native_url, key_of(model))] = _Known(time.monotonic(), window, is_seen)


def context(messages: list[Message], usage: Usage, window: int | None, dropped: int = 0) -> UsedContext:
    """Return how full the window is after an answer.

    :param messages: what was sent
    :param usage: the tokens, as the provider counted them
    :param dropped: how many messages were left out before sending
    """
    seen, used = usage["prompt_tokens"], usage["total_tokens"]
    if dropped:
        return {"used": used, "window": window, "truncated": True, "dropped_messages": dropped}
    return {"used": used, "window": window, "truncated": _truncated(messages, seen, window)}


def _truncated(messages: list[Message], seen: int | None, window: int | None) -> bool | None:
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


def estimate(message: Message) -> int:
    """Return about how many tokens *message* takes, rather too many than too few."""
    calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
    texts = f"{calls}{message.get('content') or ''}"
    ascii_characters = len(texts.encode("ascii", "ignore"))
    others = len(texts) - ascii_characters
    images = len(message.get("images") or ())
    return _PER_MESSAGE + math.ceil(ascii_characters / CHARS_PER_TOKEN) + others + images * _PER_IMAGE


def measure(response: str, usage: ToldUsage | None) -> Usage:
    """Return the tokens as the provider counted them, else an estimate that says it is one."""
    if usage is None:
        estimate = int(len(response.split()) * 1.3)
        return {
            "prompt_tokens": None,
            "completion_tokens": estimate,
            "total_tokens": None,
            "estimated": True,
        }
    prompt, completion = usage.get("prompt_tokens"), usage["completion_tokens"]
    total = usage.get("total_tokens") or (prompt or 0) + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "estimated": False,
    }

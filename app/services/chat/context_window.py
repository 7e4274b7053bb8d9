"""The context window of each model, and the tokens of it that messages and answers take."""

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
"""For ASCII text: English has about four, code and numbers fewer. Any other character counts as a token."""
_PER_MESSAGE = 8  # tokens of the template around each message
_PER_IMAGE = 1000
_PART = 500_000  # characters

_FRESH = 30.0  # seconds for which a known window is used without asking Ollama again
_MOST = 1000  # models in the cache; clients can invent any number of names
_SMALLEST = 256  # tokens


@dataclass(frozen=True)
class _Known:
    at: float
    window: int | None  # None: Ollama did not tell
    is_seen: bool  # True: Ollama told the window; False: a request has just asked for it


class ContextWindows:
    """The windows with which Ollama has loaded its models, from ``/api/ps``; cached for half a minute."""

    def __init__(self, ollamas: OllamaServers, settings: SettingsStore) -> None:
        self._ollamas = ollamas
        self._settings = settings
        self._known: dict[tuple[str, str], _Known] = {}
        self._lock = threading.Lock()

    def loaded(self, provider: Provider, model: str, *, seen: bool = False) -> int | None:
        """Return the window with which *model* is loaded; None when it is not loaded, or not known.

        :param seen: use only a window that Ollama told, not one that a request has just asked for; to be set
            after an answer
        """
        if not provider.is_ollama or not model:
            return None
        with self._lock:
            known = self._known.get((provider.native_url, key_of(model)))
        if known and time.monotonic() - known.at < _FRESH and (known.is_seen or not seen):
            return known.window
        is_loaded, window = self.look(provider, model)
        if seen and is_loaded is False:
            # The model has just answered and yet is not listed. So do not ask after each of its answers.
            self._keep(provider, model, None, is_seen=True)
        return window

    def look(self, provider: Provider, model: str) -> tuple[bool | None, int | None]:
        """Ask Ollama whether *model* is loaded, and with which window; None for an unknown value."""
        try:
            ollama = self._ollamas.of(provider, self._settings.hasty_timeouts())  # a chat waits for this
            found = find_model(ollama.ps()["models"], model)
        except ServiceError:
            self._keep(provider, model, None, is_seen=True)
            return None, None
        if found is None:  # not cached: the model may be loaded at any moment
            return False, None
        self._keep(provider, model, found["context_length"], is_seen=True)
        return True, found["context_length"]

    def for_request(self, provider: Provider, model: str, wanted: int | None) -> int | None:
        """Return the `num_ctx` for a request that wants *wanted* tokens; None leaves the choice to Ollama.

        Ollama loads a model anew when a request has another `num_ctx`, which takes seconds. So a loaded
        window that is large enough stays, and a new window is a power of two, which suits requests of similar
        sizes.
        """
        loaded = self.loaded(provider, model)
        if wanted is None or (loaded and loaded >= wanted):
            return loaded
        window = _SMALLEST
        while window < wanted:
            window *= 2
        self._keep(provider, model, window, is_seen=False)  # requests during the load use the same window
        return window

    def _keep(self, provider: Provider, model: str, window: int | None, *, is_seen: bool) -> None:
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[(provider.native_url, key_of(model))] = _Known(time.monotonic(), window, is_seen)


def context(messages: list[Message], usage: Usage, window: int | None, dropped: int = 0) -> UsedContext:
    """Return how full the window is after an answer.

    :param messages: the messages that were sent
    :param usage: the tokens of the messages and the answer
    :param dropped: the number of messages that this program did not send
    """
    seen, used = usage["prompt_tokens"], usage["total_tokens"]
    if dropped:
        return {"used": used, "window": window, "truncated": True, "dropped_messages": dropped}
    return {"used": used, "window": window, "truncated": _truncated(messages, seen, window)}


def _truncated(messages: list[Message], seen: int | None, window: int | None) -> bool | None:
    """Tell whether the model read only a part of *messages*; None when that is not known.

    Ollama drops the oldest messages without telling. Each word is at least one token: a model that read fewer
    tokens (*seen*) than there are words did not read all of them.
    """
    words = sum(count_words(message["content"]) for message in messages)
    if seen is not None and words > seen:
        return True
    if window is None or seen is None:
        return None
    if words > window:
        return True
    return False if sum(map(estimate, messages)) <= window else None


def estimate(message: Message) -> int:
    """Estimate the tokens of *message*, rather too many than too few."""
    calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
    texts = f"{calls}{message.get('content') or ''}"
    ascii_characters = len(texts.encode("ascii", "ignore"))
    others = len(texts) - ascii_characters
    images = len(message.get("images") or ())
    return _PER_MESSAGE + math.ceil(ascii_characters / CHARS_PER_TOKEN) + others + images * _PER_IMAGE


def count_words(text: str) -> int:
    """Return ``len(text.split())``, part by part: a long text would keep other threads waiting."""
    words = 0
    for at in range(0, len(text), _PART):
        words += len(text[at : at + _PART].split())
        if at and not text[at - 1].isspace() and not text[at].isspace():
            words -= 1  # a word that is in both parts
    return words


def measure(response: str, usage: ToldUsage | None) -> Usage:
    """Return the tokens that the provider counted, or else an estimate, with `estimated` set."""
    if usage is None:
        estimate = int(count_words(response) * 1.3)
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

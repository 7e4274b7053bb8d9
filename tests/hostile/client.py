"""What a client sees of the backend: events of a stream, error bodies, and whether the health answers meanwhile."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests

from tests.hostile.processes import Backend

_T = TypeVar("_T")
TERMINAL = {"done", "error", "cancelled"}


@dataclass
class Answer:
    """A whole answer: the events of a stream, or the JSON of a body."""

    status: int = 0
    events: list[tuple[str, Any]] = field(default_factory=list)
    body: Any = None
    broken: str = ""  # how the connection failed, if it did
    seconds: float = 0.0

    @property
    def terminal(self) -> list[str]:
        """The terminal events of a stream; of a whole answer its one kind."""
        if self.events:
            return [name for name, _ in self.events if name in TERMINAL]
        return [] if self.body is None else ["done" if self.status < 400 else "error"]

    @property
    def error_type(self) -> str:
        """The slug of the failure; empty for a success."""
        body = dict(self.events).get("error") if self.events else self.body
        body = body if isinstance(body, dict) else {}
        inner = body.get("error")
        return str(inner.get("code", "") if isinstance(inner, dict) else body.get("error_type", ""))

    @property
    def ended_once(self) -> bool:
        """Whether there is exactly one terminal event, and nothing after it."""
        one = len(self.terminal) == 1
        return one and (not self.events or self.events[-1][0] in TERMINAL)

    def describe(self) -> str:
        names = [name for name, _ in self.events][-3:]
        return f"{self.status} {self.error_type} {names} {self.broken} after {self.seconds:.1f} s".strip()


def ask(backend: Backend, path: str, body: Any = None, *, method: str = "POST", **options: Any) -> Answer:
    """Send a request; read its answer or stream to the end. A failed connection is part of the answer."""
    answer, began = Answer(), time.monotonic()
    try:
        response = backend.call(method, path, body, stream=True, **options)
        with response:
            answer.status = response.status_code
            if response.headers.get("Content-Type", "").startswith("text/event-stream"):
                answer.events.extend(events(response))
            else:
                answer.body = _json(response.content)
    except requests.RequestException as exc:
        answer.broken = type(exc).__name__
    answer.seconds = time.monotonic() - began
    return answer


def events(response: requests.Response) -> Iterator[tuple[str, Any]]:
    """Yield the events of a stream as they arrive; OpenAI's streams have `chunk`, and `done` at the end."""
    name = "chunk"
    for line in response.iter_lines(chunk_size=None):
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line == b"data: [DONE]":
            yield "done", None
        elif line.startswith(b"data: "):
            value = _json(line[6:])
            failed = name == "chunk" and isinstance(value, dict) and "error" in value
            yield "error" if failed else name, value
            name = "chunk"


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw[:300].decode("utf-8", "replace")


def fault_of(status: int, text: str, request_id: str | None) -> str:
    """Return what is wrong with an error answer; empty if it is as documented.

    :param request_id: the header X-Request-ID of the answer
    """
    if status < 400:
        return ""
    body = _json(text.encode())
    if not isinstance(body, dict):
        return f"{status} without an error body: {text[:120]!r}"
    if isinstance(body.get("error"), dict):  # OpenAI's shape
        slug, sentence, id = body["error"].get("code"), body["error"].get("message"), request_id
    else:
        slug, sentence, id = body.get("error_type"), body.get("error"), body.get("request_id")
    if slug == "internal_error" or "Traceback" in text:
        return f"{status} {text[:120]}"
    if not id or id != request_id:
        return f"{status} {slug} without its request id"
    return "" if sentence and re.fullmatch(r"[a-z][a-z0-9_]*", str(slug)) else f"{status} {text[:120]}"


def together(calls: Sequence[Callable[[], _T]]) -> list[_T]:
    """Call all at once, each in a thread; return what they return. Nobody waits for them when the run ends."""
    results: dict[int, _T] = {}

    def work(number: int, call: Callable[[], _T]) -> None:
        results[number] = call()

    threads = [
        threading.Thread(target=work, args=(number, call), daemon=True) for number, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(calls))]


@dataclass
class Watch:
    """What the watcher saw of the backend."""

    worst: float = 0.0  # seconds of the slowest answer of the health
    unanswered: int = 0  # times that the health did not answer in time
    peak: int = 0  # MB


@contextmanager
def watching(backend: Backend, seconds: float = 5, limit_mb: int = 1500) -> Iterator[Watch]:
    """Ask for the health again and again while the block runs; kill a backend that takes all the memory.

    :param seconds: within which the health must answer
    """
    watch, over = Watch(), threading.Event()

    def ping() -> None:
        while not over.wait(0.1):
            began = time.monotonic()
            if not backend.is_healthy(seconds) and not over.is_set():
                watch.unanswered += 1
            watch.worst = max(watch.worst, time.monotonic() - began)

    def weigh() -> None:
        while not over.wait(0.05):
            watch.peak = max(watch.peak, backend.usage()["MB"])
            if watch.peak > limit_mb:
                backend.kill()

    threads = [threading.Thread(target=target, daemon=True) for target in (ping, weigh)]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        over.set()
        for thread in threads:
            thread.join()

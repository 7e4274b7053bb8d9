"""The measurements of one target."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.load import Answer, Connection, LoadError, read_answer
from benchmarks.wire import text_of, tokens_of

Ask = Callable[[str, bool], bytes]
"""Returns the request for a model's name; the second argument asks for a stream."""


@dataclass(frozen=True)
class Size:
    """The size of the measurements: numbers of chats, clients, tokens and streams."""

    chats: int = 200
    seconds: float = 5.0
    clients: int = 16
    long: int = 50_000
    long_each: int = 10_000
    streams: int = 500
    slow: int = 100


async def latency(port: int, ask: Ask, size: Size) -> dict[str, float]:
    """Return the median and 95 % milliseconds of chats, one after the other: `chat`, `chat_p95`."""
    answers = await _one_client(port, ask("instant", False), size.chats)
    _check(answers, "instant")
    times = sorted(answer.seconds * 1000 for answer in answers)
    return {"chat": statistics.median(times), "chat_p95": times[int(len(times) * 0.95)]}


async def first_token(port: int, ask: Ask, size: Size) -> dict[str, float]:
    """Return the median milliseconds to the first token of streams, one after the other: `first_token`."""
    answers = await _one_client(port, ask("instant", True), size.chats)
    _check(answers, "instant")
    return {"first_token": statistics.median((answer.first_token or 0) * 1000 for answer in answers)}


async def throughput(port: int, ask: Ask, size: Size) -> dict[str, float]:
    """Return the chats per second of several clients at once: `requests`."""
    request, answers = ask("instant", False), list[Answer]()
    started = time.perf_counter()
    over = started + size.seconds

    async def client() -> None:
        connection = await Connection.open(port)
        while time.perf_counter() < over:
            answers.append(await connection.ask(request))
        connection.close()

    await asyncio.gather(*(client() for _ in range(size.clients)))
    rate = len(answers) / (time.perf_counter() - started)
    _check(answers, "instant")
    return {"requests": rate}


async def relay(port: int, ask: Ask, size: Size) -> dict[str, float]:
    """Return the tokens per second in one stream and in several: `relay`, `relay_many`.

    A short stream is measured first: its rate sets the length of the others, so that they take some seconds
    with any target.
    """
    rate = await _relay(port, ask, min(2000, size.long), 1)
    one = await _relay(port, ask, min(max(2000, int(rate * size.seconds)), size.long), 1)
    each = max(200, min(int(one * size.seconds / size.clients), size.long_each))
    return {"relay": one, "relay_many": await _relay(port, ask, each, size.clients)}


async def slow_streams(port: int, ask: Ask, size: Size) -> dict[str, float]:
    """Return how many slow streams at once failed, and the largest delay in seconds: `failed`, `late`.

    The delay is the time between the last token at the upstream and the end of the answer.
    """
    model = f"slow:{size.slow}"
    due = (size.slow + 2) / 10
    answers = await _at_once(port, ask(model, True), size.streams, due + 60)
    failed = sum(not _is_right(answer, model) for answer in answers)
    return {"failed": failed, "late": max((answer.seconds for answer in answers), default=due) - due}


async def _relay(port: int, ask: Ask, tokens: int, streams: int) -> float:
    model = f"long:{tokens}"
    answers = await _at_once(port, ask(model, True), streams)
    _check(answers, model)
    return streams * tokens / max(answer.seconds for answer in answers)


async def _one_client(port: int, request: bytes, count: int) -> list[Answer]:
    connection = await Connection.open(port)
    answers = [await connection.ask(request) for _ in range(count)]
    connection.close()
    return answers


async def _at_once(port: int, request: bytes, count: int, limit: float = 120) -> list[Answer]:
    connections = [await Connection.open(port) for _ in range(count)]
    answers = await asyncio.gather(*(connection.ask(request, limit) for connection in connections))
    for connection in connections:
        connection.close()
    return answers


def _is_right(answer: Answer, model: str) -> bool:
    try:
        _check([answer], model)
    except LoadError:
        return False
    return True


def _check(answers: list[Answer], model: str) -> None:
    expected = text_of(tokens_of(model))
    for answer in answers:
        if read_answer(answer).rstrip() != expected.rstrip() or not answer.whole:
            raise LoadError("an answer is not complete, or not in order")

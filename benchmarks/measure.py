"""The measures of one target: each returns its figures by name."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks.answers import AnswerError, read_answer, token_times
from benchmarks.load import Answer, Connection
from benchmarks.target import Target
from benchmarks.wire import PACED_SECONDS, text_of, tokens_of

Figures = dict[str, float]
Measure = Callable[[Target, "Size"], Coroutine[Any, Any, Figures]]

LOADS = ("chat", "first", "frontier", "relay", "paced")

TAILS = (5, 10, 50, 100)
"""Milliseconds at p99 for which the most chats a second are looked for."""

_SAMPLE = 0.5  # seconds between two looks at the memory


@dataclass(frozen=True)
class Size:
    """The size of the measures.

    :param warm_up: seconds of chats before the first measure
    :param chats: one after the other, or as many as fit into `seconds`
    :param seconds: the longest time for chats one after the other, and for a relayed stream
    :param clients: numbers of clients, each for `level_seconds`
    :param streams: numbers of paced streams begun at once, each of `paced` tokens, given up when it is
        `patience` seconds late
    :param long: the most tokens of one relayed stream; `long_each`: of each of 16
    :param pause: seconds from the last load to the look at the memory
    """

    warm_up: float = 3.0
    chats: int = 2000
    seconds: float = 5.0
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    level_seconds: float = 2.0
    streams: tuple[int, ...] = (1, 100, 300, 500)
    paced: int = 200
    patience: float = 60.0
    long: int = 50_000
    long_each: int = 10_000
    pause: float = 30.0


QUICK = Size(1.0, 500, 1.0, (1, 4, 16, 64), 0.5, (1, 100, 300), 100, 60.0, 20_000, 2000, 5.0)
"""A run of two to three minutes, on a machine that does nothing else."""


async def warm_up(target: Target, size: Size) -> Figures:
    """Chat until what is made or compiled at the first requests is there; there are no figures."""
    answers, *_ = await _level(target, 4, size.warm_up)
    _check(answers, "instant")
    return {}


async def chat(target: Target, size: Size) -> Figures:
    """Return milliseconds of chats, one after the other, and the CPU milliseconds of one."""
    with Cpu(target) as cpu:
        answers = await _one_client(target, False, size)
    _check(answers, "instant")
    times = [answer.seconds * 1000 for answer in answers]
    found = {"chat": statistics.median(times), "chat_p99": percentile(times, 99)}
    return {**found, **cpu.each("chat_cpu", len(answers), 1000)}


async def first(target: Target, size: Size) -> Figures:
    """Return the milliseconds to the first token of streams, one after the other, and the CPU of a stream."""
    with Cpu(target) as cpu:
        answers = await _one_client(target, True, size)
    _check(answers, "instant")
    times = [token_times(answer, 1)[0] * 1000 for answer in answers]
    found = {"first": statistics.median(times), "first_p99": percentile(times, 99)}
    return {**found, **cpu.each("first_cpu", len(answers), 1000)}


async def clients(count: int, target: Target, size: Size) -> Figures:
    """Return chats a second, p50 and p99 of *count* clients at once, and the CPU milliseconds of a chat.

    `busy` is the CPU time that the load took, as a share of one core: near 1 it is the load that is measured.
    """
    with Cpu(target) as cpu:
        answers, seconds, busy = await _level(target, count, size.level_seconds)
    _check(answers, "instant")
    times = [answer.seconds * 1000 for answer in answers]
    found = {"rate": len(answers) / seconds, "p50": statistics.median(times), "p99": percentile(times, 99)}
    found.update(busy=busy, **cpu.each("cpu", len(answers), 1000))
    return {f"clients_{count}_{name}": value for name, value in found.items()}


def within(values: dict[str, list[float]], size: Size) -> dict[str, list[float]]:
    """Return, of the *values* of the rounds, the most chats a second within each tail: `within_50` ..."""
    levels = [f"clients_{count}" for count in size.clients if f"clients_{count}_rate" in values]
    pairs = [zip(values[f"{level}_rate"], values[f"{level}_p99"], strict=True) for level in levels]
    rounds = list(zip(*pairs))  # a round that failed is missing in some  # noqa: B905
    return {
        f"within_{tail}": [max((rate for rate, p99 in found if p99 <= tail), default=0.0) for found in rounds]
        for tail in TAILS
        if rounds
    }


async def relay(target: Target, size: Size) -> Figures:
    """Return the tokens per second in one stream and in 16: `relay`, `relay_many`.

    A short stream is measured first: its rate sets the length of the others, so that they take some seconds
    with any target.
    """
    rate = await _relay(target, min(2000, size.long), 1)
    one = await _relay(target, min(max(2000, int(rate * size.seconds)), size.long), 1)
    each = max(200, min(int(one * size.seconds / 16), size.long_each))
    return {"relay": one, "relay_many": await _relay(target, each, 16)}


async def paced(count: int, target: Target, size: Size) -> Figures:
    """Return what *count* streams at once, with a token each 20 ms, lost, and what came late.

    `late` is the time from when the last token was due, counted from the request, to its arrival.
    """
    sampling = asyncio.create_task(_most_memory(target))
    with Cpu(target) as cpu:
        limit = size.paced * PACED_SECONDS + size.patience
        answers = await _at_once(target, f"paced:{size.paced}", count, limit)
    sampling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sampling
    found = {**_pace(answers, size.paced), **cpu.each("cpu", count * size.paced, 1e6)}
    return {f"paced_{count}_{name}": value for name, value in found.items()}


def steps(name: str, size: Size) -> dict[str, Measure]:
    """Return the parts of the measure *name*, each short, so that the targets can take turns."""
    if name == "frontier":
        return {f"{count} clients": partial(clients, count) for count in size.clients}
    if name == "paced":
        return {f"{count} paced streams": partial(paced, count) for count in size.streams}
    return {name: {"chat": chat, "first": first, "relay": relay}[name]}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that *percent* of the *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Cpu:
    """The CPU time of a target inside a ``with`` block."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._used: float | None = None

    def __enter__(self) -> Cpu:
        self._before = self._target.cpu()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._target.cpu()
        self._used = None if self._before is None or after is None else after - self._before

    def each(self, name: str, count: int, unit: float) -> Figures:
        """Return the CPU time of one of *count*, in seconds / *unit*; nothing without /proc."""
        return {} if self._used is None else {name: self._used / count * unit}


def _pace(answers: list[Answer], tokens: int) -> Figures:
    """Return the figures of paced streams: milliseconds, and seconds for what is late."""
    expected = text_of(tokens).rstrip()
    times = [token_times(answer, tokens) for answer in answers]
    due = (tokens - 1) * PACED_SECONDS
    gaps = [(later - sooner) * 1000 for found in times for sooner, later in pairwise(found)]
    firsts = [found[0] * 1000 for found in times if found]
    late = [found[-1] - due for found in times if len(found) == tokens]
    figures: Figures = {
        "lost": float(sum(tokens - len(found) for found in times)),
        "failed": float(sum(not _is_right(answer, expected) for answer in answers)),
    }
    if gaps:
        figures.update(gap=statistics.median(gaps), gap_p99=percentile(gaps, 99))
    if firsts and late:
        figures["first"] = statistics.median(firsts)
        figures.update(late=statistics.median(late), late_max=max(late))
    return figures


async def _level(target: Target, clients: int, seconds: float) -> tuple[list[Answer], float, float]:
    """Chat with several clients at once; return the answers, their seconds, and how busy this process was."""
    request, answers = target.ask("instant", False), list[Answer]()
    connections = [await Connection.open(target.port) for _ in range(clients)]
    started, used = time.perf_counter(), time.process_time()
    over = started + seconds

    async def client(connection: Connection) -> None:
        while time.perf_counter() < over:
            answers.append(await connection.ask(request))

    await asyncio.gather(*map(client, connections))
    seconds = time.perf_counter() - started
    busy = (time.process_time() - used) / seconds
    for connection in connections:
        connection.close()
    return answers, seconds, busy


async def _relay(target: Target, tokens: int, streams: int) -> float:
    model = f"long:{tokens}"
    answers = await _at_once(target, model, streams)
    _check(answers, model)
    return streams * tokens / max(answer.seconds for answer in answers)


async def _most_memory(target: Target) -> None:
    while True:
        target.note_memory()
        await asyncio.sleep(_SAMPLE)


async def _one_client(target: Target, stream: bool, size: Size) -> list[Answer]:
    request = target.ask("instant", stream)
    connection = await Connection.open(target.port)
    answers = list[Answer]()
    over = time.perf_counter() + size.seconds
    while len(answers) < size.chats and (not answers or time.perf_counter() < over):
        answers.append(await connection.ask(request))
    connection.close()
    return answers


async def _at_once(target: Target, model: str, count: int, limit: float = 120) -> list[Answer]:
    request = target.ask(model, True)
    connections = [await Connection.open(target.port) for _ in range(count)]
    answers = await asyncio.gather(*(connection.ask(request, limit) for connection in connections))
    for connection in connections:
        connection.close()
    return answers


def _is_right(answer: Answer, expected: str) -> bool:
    try:
        return read_answer(answer).rstrip() == expected and answer.whole
    except AnswerError:
        return False


def _check(answers: list[Answer], model: str) -> None:
    expected = text_of(tokens_of(model)).rstrip()
    for answer in answers:
        if read_answer(answer).rstrip() != expected or not answer.whole:
            raise AnswerError("an answer is not complete, or not in order")

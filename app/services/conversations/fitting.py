"""Choose the messages of a conversation that fit the model's context window."""

from __future__ import annotations

from itertools import accumulate, chain

from app.services.chat import estimate
from app.services.conversations.rows import Turn


def fit(messages: list[Turn], *, window: int, reserve: int) -> tuple[list[Turn], int]:
    """Return the *messages* to send, in order, and how many were left out because they do not fit.

    A turn is a message of the user and the answers to it. The system messages and the newest turn are always
    sent. Of the other turns, the oldest are left out, a quarter of the room at a time, until the estimated
    tokens are at most *window* - *reserve*. Unanswered turns are never sent, and do not count as left out.

    :param messages: the result of :meth:`~app.services.conversations.store.ConversationStore.turns`, with the
        newest message of the user at the end
    :param window: the tokens of the model's context window
    :param reserve: the tokens of the window that are for the answer
    """
    turns = _turns(messages)
    past = [turn for turn in turns[:-1] if _is_answered(turn)]
    newest = turns[-1:]
    system = [message for message in messages if message["role"] == "system"]
    sizes = [sum(map(estimate, turn)) for turn in past]
    room = window - reserve - sum(map(estimate, chain(system, *newest)))
    first = _first_that_stays(sizes, over=sum(sizes) - room, step=max(1, (window - reserve) // 4))
    wanted = {id(message) for message in chain(system, *past[first:], *newest)}
    return [message for message in messages if id(message) in wanted], sum(map(len, past[:first]))


def _first_that_stays(sizes: list[int], *, over: int, step: int) -> int:
    """Return how many of the oldest turns to leave out, when all turns are *over* tokens too large.

    A model server caches the prompt, and reads it anew from the first difference. So the first turn that is
    sent moves seldom, and then by about *step* tokens: it stays the same for several requests.
    """
    if over <= 0:
        return 0
    ends = [0, *accumulate(sizes)]
    enough = [number for number, end in enumerate(ends) if end >= over] or [len(sizes)]
    return next((n for n in enough if ends[n] // step > ends[n - 1] // step), enough[0])


def _turns(messages: list[Turn]) -> list[list[Turn]]:
    """Group the messages by turns, without the system messages."""
    turns: list[list[Turn]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _is_answered(turn: list[Turn]) -> bool:
    """Tell whether a turn ends with an answer, so that a model can go on from it.

    An answer that was cut off counts if it has text. A tool call without its result does not count.
    """
    calls = sum(len(message.get("tool_calls") or ()) for message in turn)
    results = sum(message["role"] == "tool" for message in turn)
    last = turn[-1]
    is_complete = last.get("status", "complete") == "complete"
    return results >= calls and (last["role"] != "assistant" or is_complete or bool(last.get("content")))

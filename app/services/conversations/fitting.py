"""Which messages of a conversation fit in a model's context."""

from __future__ import annotations

from itertools import accumulate, chain

from app.services.chat import estimate
from app.services.conversations.rows import Turn


def fit(messages: list[Turn], *, window: int, reserve: int) -> tuple[list[Turn], int]:
    """Return the *messages* to send, in order, and how many were left out because they do not fit.

    A turn is a message of the user with all that answers it. The system's messages and the newest turn are
    always kept; of the other turns, the oldest are left out, a quarter of the room at a time, until the
    estimate is at most *window* - *reserve*. Turns that no text answers are left out before, and are not
    counted.

    :param messages: as :meth:`~app.services.conversations.store.ConversationStore.turns` returns them, with
        the newest message of the user at the end
    :param window: tokens of the model's context
    :param reserve: tokens of it that the answer is to have
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
    """Return how many of the oldest turns go, when they are *over* tokens too large.

    What is sent begins only at a turn before which another *step* of tokens ended, so that it begins the
    same for several turns: a model server keeps what it has read, and reads anew what begins otherwise.
    """
    if over <= 0:
        return 0
    ends = [0, *accumulate(sizes)]
    enough = [number for number, end in enumerate(ends) if end >= over] or [len(sizes)]
    return next((n for n in enough if ends[n] // step > ends[n - 1] // step), enough[0])


def _turns(messages: list[Turn]) -> list[list[Turn]]:
    """Return the messages, but for the system's, by turns."""
    turns: list[list[Turn]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _is_answered(turn: list[Turn]) -> bool:
    """Tell whether a turn came to an end that a model can go on from.

    What broke off with its text counts; what broke off before its text, or before the result of a tool, not.
    """
    calls = sum(len(message.get("tool_calls") or ()) for message in turn)
    results = sum(message["role"] == "tool" for message in turn)
    last = turn[-1]
    is_complete = last.get("status", "complete") == "complete"
    return results >= calls and (last["role"] != "assistant" or is_complete or bool(last.get("content")))

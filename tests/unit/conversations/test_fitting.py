"""Which messages fit in a model's context."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.chat.context_window import estimate
from app.services.conversations.fitting import fit

Json = dict[str, Any]

SYSTEM = {"role": "system", "content": "Be brief."}


def turn(text: str, answer: str = "", **more: Any) -> list[Json]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer, **more}]


def messages() -> st.SearchStrategy[list[Json]]:
    message = st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system", "tool"]),
            "content": st.text(max_size=60),
            "status": st.sampled_from(["complete", "failed", "cut", "stopped"]),
        },
        optional={"images": st.lists(st.just("aGk="), max_size=1)},
    )
    newest = st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=60)})
    return st.tuples(st.lists(message, max_size=12), newest).map(lambda parts: [*parts[0], parts[1]])


@given(messages(), st.integers(0, 3000), st.integers(0, 1000))
def test_fit_keeps_the_system_and_the_newest_and_stays_in_the_budget(
    said: list[Json], window: int, reserve: int
) -> None:
    kept, dropped = fit(said, window=window, reserve=reserve)

    systems = [message for message in said if message["role"] == "system"]
    assert kept[-1] is said[-1]
    assert [message for message in kept if message["role"] == "system"] == systems
    order = [id(message) for message in said]
    assert [id(message) for message in kept] == sorted(map(id, kept), key=order.index)
    if sum(map(estimate, kept)) > window - reserve:
        assert kept == [*systems, said[-1]]
    assert dropped <= len(said) - len(kept)


@given(messages(), st.integers(0, 3000))
def test_fit_leaves_nothing_out_that_has_room(said: list[Json], window: int) -> None:
    everything, _ = fit(said, window=10**9, reserve=0)
    kept, dropped = fit(said, window=window, reserve=0)

    if sum(map(estimate, everything)) <= window:
        assert (kept, dropped) == (everything, 0)


def test_fit_changes_the_beginning_seldom() -> None:
    said = [message for number in range(60) for message in turn(f"{number} " + "x" * 100, "y" * 20)]
    starts = []

    for length in range(0, len(said), 2):
        kept, _ = fit([*said[:length], {"role": "user", "content": "now"}], window=1000, reserve=250)
        starts.append(kept[0]["content"])
        assert length < 30 or sum(map(estimate, kept)) > 500

    changes = sum(one != other for one, other in itertools.pairwise(starts[20:]))
    assert changes < 15


def test_fit_leaves_out_the_oldest_turns_whole() -> None:
    old, recent = turn("a" * 300, "b" * 300), turn("c" * 300, "d" * 300)
    said = [SYSTEM, *old, *recent, {"role": "user", "content": "e" * 30}]

    kept, dropped = fit(said, window=400, reserve=100)

    assert kept == [SYSTEM, *recent, said[-1]]
    assert dropped == 2


def test_fit_does_not_reach_over_a_turn_that_is_too_large() -> None:
    said = [*turn("small", "one"), *turn("x" * 3000, "y"), {"role": "user", "content": "now"}]

    kept, dropped = fit(said, window=200, reserve=0)

    assert kept == said[-1:]
    assert dropped == 4


def test_fit_keeps_tool_calls_with_their_results() -> None:
    calls = [{"id": "1", "function": {"name": "time", "arguments": "{}"}}]
    used = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "x" * 300, "tool_call_id": "1"},
        {"role": "assistant", "content": "Noon."},
    ]
    newest = {"role": "user", "content": "Thanks"}

    assert fit([*used, newest], window=1000, reserve=0) == ([*used, newest], 0)
    assert fit([*used, newest], window=100, reserve=0) == ([newest], 4)


def test_fit_keeps_all_of_the_newest_turn_though_it_is_too_large() -> None:
    newest = [
        {"role": "user", "content": "x" * 300},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "y" * 300},
    ]

    assert fit([*turn("a", "b"), *newest], window=10, reserve=0) == (newest, 2)


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        ({"content": "", "status": "failed"}, False),
        ({"content": "", "status": "cut"}, False),
        ({"content": "", "status": "stopped"}, False),
        ({"content": "Well", "status": "failed"}, True),
        ({"content": "Well", "status": "cut"}, True),
        ({"content": "Well", "status": "stopped"}, True),
        ({"content": "", "status": "complete"}, True),
        ({"content": "", "status": "complete", "tool_calls": [{"function": {"name": "f"}}]}, False),
    ],
)
def test_fit_leaves_out_a_question_that_no_text_answers(answer: Json, is_kept: bool) -> None:
    past = [{"role": "user", "content": "Why?"}, {"role": "assistant", **answer}]
    newest = {"role": "user", "content": "And now?"}

    kept, dropped = fit([*past, newest], window=1000, reserve=0)

    assert kept == ([*past, newest] if is_kept else [newest])
    assert dropped == 0  # it was not for want of room


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"content": ""}, 8),
        ({"content": None}, 8),
        ({"content": "abcd"}, 10),
        ({"content": "日本語"}, 11),
        ({"content": "Hi", "images": ["aGk=", "aGk="]}, 2009),
        ({"content": "", "tool_calls": [{"a": 1}]}, 8 + 4),
    ],
)
def test_estimate_counts_characters_images_and_calls(message: Json, tokens: int) -> None:
    assert estimate({"role": "user", **message}) == tokens

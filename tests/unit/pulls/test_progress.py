"""The compacted log of a pull."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.schemas.pulls import PullPartSchema
from app.services.pulls.progress import Progress
from tests.wire import recording

_parts = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["pulling manifest", "pulling a", "pulling b", "success"]),
            "digest": st.sampled_from([None, "sha256:a", "sha256:b"]),
            "total": st.none() | st.integers(0, 10),
            "completed": st.none() | st.integers(0, 10),
        }
    )
)


def compact(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    progress = Progress({}, None, None, [])
    for now, part in enumerate(parts):
        progress.feed(part, now)
    return progress.log


def _step(part: dict[str, Any]) -> tuple[str, str | None]:
    return part["status"], part["digest"]


@given(_parts)
def test_compact_keeps_each_step_once_in_order_with_its_last_line(parts: list[dict[str, Any]]) -> None:
    log = compact(parts)

    steps = [_step(part) for part in parts]
    assert [_step(part) for part in log] == list(dict.fromkeys(steps))
    for part in log:
        assert part == [other for other in parts if _step(other) == _step(part)][-1]


@given(_parts)
def test_compact_of_a_compacted_log_changes_nothing(parts: list[dict[str, Any]]) -> None:
    log = compact(parts)

    assert compact(log) == log


@given(_parts)
def test_progress_never_falls(parts: list[dict[str, Any]]) -> None:
    progress = Progress({}, None, None, [])
    seen = []
    for now, part in enumerate(parts):
        progress.feed(part, now)
        seen.append((progress.completed, progress.percent or 0.0))
    progress.finish()
    seen.append((progress.completed, progress.percent or 0.0))

    assert [completed for completed, _ in seen] == sorted(completed for completed, _ in seen)
    assert [percent for _, percent in seen] == sorted(percent for _, percent in seen)
    assert all(percent <= 100 for _, percent in seen)
    assert progress.completed == (progress.total or 0)


def test_compact_of_a_recorded_pull_is_a_line_a_step() -> None:
    lines = recording("pull_stream_throttled").body.splitlines()

    log = compact(PullPartSchema().load(json.loads(line)) for line in lines)

    layer = "sha256:11a04cbdab5cfcf128dfc97516eef469866df301d03eadce590e830d5d4eba0d"
    assert [part["status"] for part in log] == [
        "pulling manifest",
        "pulling 11a04cbdab5c",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert log[1] == {
        "status": "pulling 11a04cbdab5c",
        "digest": layer,
        "total": 98362432,
        "completed": 97910784,
    }
    assert log[0] == {"status": "pulling manifest", "digest": None, "total": None, "completed": None}

"""What the tests of the usage share."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from app import threads
from app.threads import WriteBehind


@pytest.fixture
def failed_writes(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Is released by each write that fails; a missing table counts as a database that is away."""
    monkeypatch.setattr(threads, "_PAUSE", 0.01)
    failed = threading.Semaphore(0)
    give_up = WriteBehind._give_up

    def note(self: WriteBehind[Any], exc: Exception) -> None:
        give_up(self, exc)
        failed.release()

    monkeypatch.setattr(WriteBehind, "_give_up", note)
    return failed

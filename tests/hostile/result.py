"""What a scenario reports."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 20  # losses that are printed at once; the others are in the JSON


class Skipped(Exception):
    """The scenario needs something that this machine does not have."""


@dataclass
class Result:
    """The attempts of a scenario, the ones that were lost, and remarks."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return self.tried - len(self.lost)

    def check(self, held: object, lost: str) -> bool:
        """Count one attempt; *lost* is what to report if it was not survived. Return whether it was."""
        self.tried += 1
        if not held:
            self.lost.append(lost)
            if len(self.lost) <= _SHOWN:
                print(f"    lost: {lost}"[:1000], file=sys.stderr, flush=True)
        return bool(held)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def dump(self) -> dict[str, Any]:
        """Return the result as JSON values; equal losses are listed once, with their number."""
        lost = [
            f"{text} ({times} times)" if times > 1 else text for text, times in Counter(self.lost).items()
        ]
        return {
            "tried": self.tried,
            "survived": self.survived,
            "lost": len(self.lost),
            "losses": lost[:200],
            "notes": self.notes,
        }

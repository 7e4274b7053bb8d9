"""What Python does beside running the program."""

from __future__ import annotations

import gc


def keep_what_is_loaded() -> None:
    """Look no more for garbage in what is loaded by now: that would keep all threads waiting for a while."""
    gc.collect()
    gc.freeze()

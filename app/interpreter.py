"""The settings of Python itself."""

from __future__ import annotations

import gc
import sys

_SWITCH_INTERVAL = 0.001  # seconds that a thread may compute while others wait for the interpreter's lock


def serve_many() -> None:
    """Prepare the interpreter for many short requests beside long ones; call it when all is loaded.

    With Python's own 5 ms between two threads, a short request would wait for a twelfth of a second beside
    one that computes: it gives the lock away at each system call, a dozen times. And what is loaded stays for
    good: to look through it for garbage would keep all threads waiting as long again.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()

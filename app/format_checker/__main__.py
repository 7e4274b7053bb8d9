"""The checker: reads a question from each line of stdin, and writes a verdict to each line of stdout."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from app.format_checker.pool import LIMIT
from app.format_checker.rules import Verdict, answer_verdict, schema_verdict

_MEMORY = 512_000_000  # bytes
_ODD = "The schema or the answer holds something odd, such as half a character or very deep nesting."
_UNHURRIED = 5  # the server goes first


def main() -> None:
    """Answer questions until stdin ends: then the backend is gone, however it ended."""
    _limit()
    with Path(os.devnull).open("w") as nowhere:
        for line in sys.stdin.buffer:
            # A check that is under way does not see the end of stdin. No signal is needed to end it.
            faulthandler.dump_traceback_later(LIMIT + 1, exit=True, file=nowhere)
            verdict = _verdict(json.loads(line))
            faulthandler.cancel_dump_traceback_later()
            sys.stdout.buffer.write(json.dumps(verdict).encode("ascii") + b"\n")
            sys.stdout.buffer.flush()


def _limit() -> None:
    """Limit the memory, and leave Ctrl-C to the backend."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):  # Windows, macOS
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.nice(_UNHURRIED)


def _verdict(question: dict[str, Any]) -> Verdict:
    try:
        if "schema" in question:
            return schema_verdict(question["schema"])
        return answer_verdict(question["wanted"], question["text"])
    except (ValueError, TypeError, RecursionError):  # any other failure ends this process
        return Verdict(None, _ODD)


if __name__ == "__main__":
    main()

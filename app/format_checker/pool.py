"""The checkers: processes that check one thing after another, and are killed when a check takes too long."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.format_checker.rules import Format, Verdict

log = logging.getLogger(__name__)

LIMIT = 2.0
"""Seconds for a check, with the wait for a free checker and its start."""
MOST = 2
"""Checkers that run at once; one that is busy with a hostile schema does not keep the others from work."""
LONGEST = 4_000_000
"""Characters of an answer that is checked."""

_ROOT = Path(__file__).resolve().parents[2]
_KEPT_ENVIRON = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")  # what Python may need
_TOO_MUCH = Verdict(None, "The check takes too much time or memory.")
_BUSY = Verdict(None, "Too many other checks are under way.")


class Checker:
    """A checker process.

    :raises OSError: when it cannot be started
    """

    def __init__(self) -> None:
        paths = [str(_ROOT), *(str(Path(path).resolve()) for path in sys.path)]
        environ = {name: os.environ[name] for name in _KEPT_ENVIRON if name in os.environ}
        self._process = subprocess.Popen(
            # Without `site`, which takes time: the paths are those of this process.
            [sys.executable, "-S", "-m", "app.format_checker"],
            env={**environ, "PYTHONPATH": os.pathsep.join(paths)},  # no keys of providers
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._is_killed = False

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return not self._is_killed and self._process.poll() is None

    def ask(self, question: Mapping[str, Any], seconds: float) -> Verdict | None:
        """Return the process's answer; None if it dies first, or is killed after *seconds*."""
        # A thread, because not every system can wait for a pipe with a limit.
        watch = threading.Timer(max(0, seconds), self._kill)
        watch.start()
        try:
            self._in.write(json.dumps(question).encode("ascii") + b"\n")
            self._in.flush()
            return Verdict(*json.loads(self._out.readline()))
        except (OSError, ValueError):  # a broken pipe; an incomplete answer
            return None
        finally:
            watch.cancel()
            watch.join()  # a kill that has begun must be over before the next question

    def close(self) -> None:
        """End the process."""
        self._kill()
        self._close_pipes()
        self._process.wait()

    def disown(self) -> None:
        """Forget the process after a fork: it belongs to the parent."""
        self._close_pipes()
        self._process.returncode = 0  # else Popen warns that it runs

    def _close_pipes(self) -> None:
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):  # the rest of a question that the process did not read
                pipe.close()

    @property
    def _in(self) -> Any:
        return self._process.stdin

    @property
    def _out(self) -> Any:
        return self._process.stdout

    def _kill(self) -> None:
        self._is_killed = True
        self._process.kill()


class Pool:
    """Up to :data:`MOST` checkers, started when they are needed and kept for the next check.

    :param limit: seconds for a check; half of them to wait for a free checker
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self._begin()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):  # a fork must not share the pipes with its parent
            os.register_at_fork(after_in_child=self._begin_again)

    def ask(self, question: Mapping[str, Any]) -> Verdict:
        """Return the verdict on *question*; never raises."""
        deadline = time.monotonic() + self.limit
        if not self._places.acquire(timeout=self.limit / 2):
            return _BUSY
        try:
            checker = self._take()
            verdict = checker.ask(question, deadline - time.monotonic())
            if verdict and checker.is_alive:
                self._idle.append(checker)
            else:
                log.info("the check of a format took too much time or memory")
                checker.close()
        except OSError as exc:
            log.warning("the process that checks formats cannot be started: %s", type(exc).__name__)
            return Verdict(None, "The process that checks formats cannot be started.")
        finally:
            self._places.release()
        return verdict or _TOO_MUCH

    def start(self) -> None:
        """Start a checker if there is none, so that the next check need not wait for it."""
        if self._idle or not self._places.acquire(blocking=False):
            return
        try:
            self._idle.append(self._take())
        except OSError:
            pass  # the check will tell
        finally:
            self._places.release()

    def close(self) -> None:
        """End the idle checkers."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Checker:
        """Return an idle checker, or else a new one."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                checker = self._idle.pop()
                if checker.is_alive:
                    return checker
                checker.close()
        return Checker()

    def _begin(self) -> None:
        self._idle: list[Checker] = []
        self._places = threading.BoundedSemaphore(MOST)

    def _begin_again(self) -> None:
        for checker in self._idle:
            checker.disown()
        self._begin()


_pool = Pool()


def check_schema(schema: dict[str, Any]) -> Verdict:
    """Tell whether *schema* is a JSON schema; it must be of limited size."""
    return _pool.ask({"schema": schema})


def check_answer(wanted: Format, text: str) -> Verdict:
    """Tell whether the answer *text* has the format *wanted*."""
    if len(text) > LONGEST:
        return Verdict(None, f"The answer has more than {LONGEST:,} characters.")
    return _pool.ask({"wanted": wanted, "text": text})


def start() -> None:
    """Start a checker if there is none: an answer will have to be checked soon."""
    _pool.start()

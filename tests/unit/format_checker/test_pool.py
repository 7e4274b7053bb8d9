"""The checkers as processes: they are killed at the limit, replaced, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import ROOT
from app.format_checker import check_answer, check_schema
from app.format_checker.pool import LONGEST, MOST, Checker, Pool

NUMBER = {"type": "number"}
GOOD = {"wanted": NUMBER, "text": "1"}


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema that checks 2 to the power of *levels* times whether a value is a number."""
    defs: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{levels}": NUMBER}}


PATIENT = 60.0  # seconds: no check may fail because the machine is slow
ENDLESS = {"wanted": doubling(90), "text": "1"}


@pytest.fixture
def checker() -> Iterator[Checker]:
    checker = Checker()
    yield checker
    checker.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(PATIENT)
    yield pool
    pool.close()


def process_of(checker: Checker) -> subprocess.Popen[bytes]:
    return checker._process


def test_answers_and_schemas_are_checked_in_another_process() -> None:
    assert check_answer(NUMBER, "1") == (True, "")
    assert check_answer("json", '"é\ud800"') == (True, "")
    assert check_answer(NUMBER, '"a"') == (False, '$: "a" is not of type "number"')
    assert check_schema(NUMBER) == (True, "")
    assert check_schema({"type": 5}).is_valid is False


def test_checker_is_used_again(pool: Pool) -> None:
    pool.start()
    (first,) = pool._idle

    assert [pool.ask(GOOD).is_valid for _ in range(3)] == [True] * 3

    assert pool._idle == [first]


def test_endless_check_is_ended_and_the_checker_replaced(pool: Pool) -> None:
    pool.start()
    (first,) = pool._idle

    pool.limit = 0.3
    verdict = pool.ask(ENDLESS)

    assert verdict.is_valid is None
    assert "takes too much" in verdict.reason
    assert process_of(first).returncode is not None
    pool.limit = PATIENT
    assert pool.ask(GOOD).is_valid


def test_check_that_needs_too_much_memory_is_unknown(pool: Pool) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux limits the memory")

    verdict = pool.ask({"wanted": NUMBER, "text": "[" + "{}," * 8_000_000 + "1]"})

    assert verdict.is_valid is None
    assert pool.ask(GOOD).is_valid


@pytest.mark.parametrize("odd", [{}, {"wanted": {"const": "\ud800"}, "text": "1"}, {"wanted": 5, "text": 5}])
def test_odd_question_is_unknown(pool: Pool, odd: dict[str, Any]) -> None:
    assert pool.ask(odd).is_valid is None
    assert pool.ask(GOOD).is_valid


def test_long_answer_is_not_checked() -> None:
    verdict = check_answer("json", " " * LONGEST + "1")

    assert verdict.is_valid is None
    assert "4,000,000" in verdict.reason


def test_hostile_checks_do_not_keep_others_from_theirs_for_ever(pool: Pool) -> None:
    pool.limit = 0.5
    verdicts: list[bool | None] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(pool.ask(ENDLESS).is_valid)) for _ in range(3 * MOST)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert verdicts == [None] * 3 * MOST
    pool.limit = PATIENT
    assert pool.ask(GOOD).is_valid
    assert len(pool._idle) <= MOST


def test_many_checks_at_once_get_their_own_verdicts(pool: Pool) -> None:
    wrong: list[Any] = []

    def check(number: int) -> None:
        for turn in range(20):
            wanted = {"const": number * 1000 + turn}
            verdict = pool.ask({"wanted": wanted, "text": str(number * 1000 + turn)})
            if not verdict.is_valid:
                wrong.append(verdict)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_checker_that_died_in_idleness_is_replaced(pool: Pool) -> None:
    pool.start()
    (first,) = pool._idle
    process_of(first).kill()
    process_of(first).wait()

    assert pool.ask(GOOD).is_valid


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_checker_that_stands_still_is_killed(checker: Checker) -> None:
    assert checker.ask(GOOD, 30) == (True, "")
    process_of(checker).send_signal(signal.SIGSTOP)

    assert checker.ask(GOOD, 0.1) is None

    assert not checker.is_alive


def test_missing_program_is_told(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    pool.start()
    verdict = pool.ask(GOOD)

    assert verdict.is_valid is None
    assert "cannot be started" in verdict.reason


def test_checker_has_no_secrets(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    with_key = Checker()
    try:
        assert with_key.ask(GOOD, 30) == (True, "")  # the new program runs, not the fork of this one
        environ = Path(f"/proc/{process_of(with_key).pid}/environ")
        if not environ.exists():
            pytest.skip("only Linux shows the environment of a process")
        assert b"secret" not in environ.read_bytes()
    finally:
        with_key.close()


PARENT = r"""
import json, sys
from app.format_checker.pool import Checker
from tests.unit.format_checker.test_pool import ENDLESS
checker = Checker()
if sys.argv[1] == "busy":
    checker._in.write(json.dumps(ENDLESS).encode() + b"\n")
    checker._in.flush()
print(checker._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_checker_ends_with_its_parent_even_when_that_is_killed(state: str) -> None:
    command = [sys.executable, "-c", PARENT, state]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    ended = threading.Event()
    while _is_running(pid):
        ended.wait(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


FORK = """
import os
from app.format_checker.pool import Pool
from tests.unit.format_checker.test_pool import GOOD, PATIENT
pool = Pool(PATIENT)
assert pool.ask(GOOD).is_valid
of_parent = pool._idle[0]
pid = os.fork()
if not pid:
    assert pool._idle == []
    assert pool.ask(GOOD).is_valid
    assert pool._idle[0]._process.pid != of_parent._process.pid
    pool.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert pool.ask(GOOD).is_valid
assert pool._idle == [of_parent]
"""


def test_fork_has_checkers_of_its_own() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork()")

    subprocess.run([sys.executable, "-W", "error", "-c", FORK], cwd=ROOT, check=True, timeout=60)

"""Tests of the lines of the log."""

import logging

import pytest

from app.logs import OneLineFormatter

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def _record(created: float, message: str = "text") -> logging.LogRecord:
    record = logging.LogRecord("app", logging.INFO, "", 0, message, (), None)
    record.created, record.msecs = created, (created - int(created)) * 1000
    return record


def test_times_of_many_seconds_are_those_of_logging() -> None:
    moments = [1_700_000_000.0, 1_700_000_000.25, 1_700_000_059.999, 1_700_000_001.5, 1_700_003_600.75]
    ours, theirs = OneLineFormatter(FORMAT), logging.Formatter(FORMAT)

    lines = [ours.format(_record(moment)) for moment in moments]

    assert lines == [theirs.format(_record(moment)) for moment in moments]


@pytest.mark.parametrize("forged", ["one\ntwo", "one\rtwo", "one\u2028two", "one\x1b[2Jtwo"])
def test_text_cannot_forge_a_line(forged: str) -> None:
    line = OneLineFormatter(FORMAT).format(_record(1_700_000_000.0, forged))

    assert line.isprintable()
    assert line.endswith("two")

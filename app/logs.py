"""Set up the log."""

from __future__ import annotations

import logging
import re
import sys
import time

from app.config import Config

log = logging.getLogger(__name__)

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class OneLineFormatter(logging.Formatter):
    """Writes a record as one line, so that text from a client cannot forge a record; tracebacks follow it."""

    _second = (0, "")  # the last second of a record, and its text

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002
        """Return the record's time; the text of a second is made once for all its records."""
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime(self.default_time_format, self.converter(second))
            self._second = second, text
        return f"{text},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name  # noqa: N802
        """Return the record's line with control characters escaped."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def configure(config: Config) -> None:
    """Log to stderr, unless the process has set up its root logger already."""
    if not logging.getLogger().handlers:
        _leave_out_callers()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=config.log_level, handlers=[handler])
    for library in ("httpx2", "alembic"):  # our own lines tell the same, with more detail
        logging.getLogger(library).setLevel(logging.WARNING)
    if config.has_short_key:
        log.warning("BACKEND_API_KEY is short enough to be guessed: use 20 random characters or more.")


def _leave_out_callers() -> None:
    """Let no record look for its caller, which our lines do not name; gunicorn's lines name the process."""
    logging._srcfile = None  # noqa: SLF001  # so says the manual of logging, under "Optimization"

"""Set up the log."""

from __future__ import annotations

import logging
import re
import sys

from app.config import Config

log = logging.getLogger(__name__)

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class OneLineFormatter(logging.Formatter):
    """Writes a record as one line, so that text from a client cannot forge a record; tracebacks follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name  # noqa: N802
        """Return the record's line with control characters escaped."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def configure(config: Config) -> None:
    """Log to stderr, unless the process has set up its root logger already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=config.log_level, handlers=[handler])
    for library in ("httpx2", "alembic"):  # our own lines tell the same, with more detail
        logging.getLogger(library).setLevel(logging.WARNING)
    if config.has_short_key:
        log.warning("BACKEND_API_KEY is short enough to be guessed: use 20 random characters or more.")

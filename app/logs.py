"""What the log looks like."""

from __future__ import annotations

import logging
import re
import sys

from app.config import Config

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class OneLineFormatter(logging.Formatter):
    """A line for each record: what a client sends cannot forge another one. Only tracebacks have more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name  # noqa: N802
        """Return the record's line with control characters escaped."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def configure(config: Config) -> None:
    """Log to stderr, unless the program around has its own log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=config.log_level, handlers=[handler])
    for library in ("huey", "httpx2", "alembic"):  # their lines say less than ours
        logging.getLogger(library).setLevel(logging.WARNING)

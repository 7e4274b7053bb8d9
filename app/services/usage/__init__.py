"""Record the calls to providers, with their times and tokens, and the last use of each model.

:class:`~app.services.usage.log.UsageLog` writes them in the background, so that no call waits for it.
"""

from app.services.usage.log import CallRecord, UsageLog

__all__ = ["CallRecord", "UsageLog"]

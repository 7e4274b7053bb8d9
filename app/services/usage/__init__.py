"""The calls to providers: how long they took, how many tokens, and when each model was last used.

:class:`~app.services.usage.log.UsageLog` keeps them without any call waiting for it.
"""

from app.services.usage.log import CallRecord, UsageLog

__all__ = ["CallRecord", "UsageLog"]

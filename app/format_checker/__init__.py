"""Check answers against a format, in processes that can be killed.

A client's schema can make any validator run for ever. So :class:`~app.format_checker.pool.Pool` passes each
check to a process of its own (``python -m app.format_checker``), and kills it at the time limit. The process
knows the :mod:`~app.format_checker.rules`; it has no secrets, and little memory.
"""

from app.format_checker.pool import check_answer, check_schema, start
from app.format_checker.rules import Format, Verdict

__all__ = ["Format", "Verdict", "check_answer", "check_schema", "start"]

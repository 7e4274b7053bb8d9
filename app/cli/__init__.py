"""The command line: ``flask models ...``, ``flask chat`` and ``flask worker``.

A command exits with 0 when it did what it was asked to do, with 1 when that failed, with 2 when its arguments
are wrong. It prints for people; with ``--json`` it prints what the API answers.
"""

from __future__ import annotations

from app.cli import chat, models, worker

COMMANDS = (models.models, worker.worker, chat.chat)

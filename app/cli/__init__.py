"""The command line: ``flask models ...``, ``flask chat`` and ``flask worker``.

A command exits with 0 on success, with 1 on failure, and with 2 when its arguments are wrong. It prints text
for people, or with ``--json`` the answer of the API.
"""

from __future__ import annotations

from app.cli import chat, models, worker

COMMANDS = (models.models, worker.worker, chat.chat)

"""Export conversations: as JSON, which can be imported again, or as Markdown, to read."""

from __future__ import annotations

import re
import unicodedata
from typing import cast

from app.services.conversations.rows import ExportedConversation, KeptMessage, ShownMessage, Summary

_FIELDS = ("title", "system_prompt", "provider", "model", "created_at", "updated_at")
_NOTES = {
    "pending": "The answer is not complete yet.",
    "failed": "The answer failed.",
    "cut": "The answer was cut off.",
    "stopped": "The answer was stopped.",
}


def exported(conversation: Summary, messages: list[ShownMessage]) -> ExportedConversation:
    """Return a conversation in the format of exports, which has no ids."""
    turns = [{name: value for name, value in message.items() if name != "seq"} for message in messages]
    values = {name: value for name, value in conversation.items() if name in _FIELDS}
    return cast("ExportedConversation", {"version": 1, **values, "messages": turns})


def as_markdown(conversation: ExportedConversation) -> str:
    """Return a conversation as Markdown."""
    parts = [f"# {' '.join(conversation['title'].split()) or 'Conversation'}"]
    if conversation["system_prompt"]:
        parts.append(_quote(conversation["system_prompt"]))
    for message in conversation["messages"]:
        parts += _section(message)
    return "\n\n".join(parts) + "\n"


def file_name(title: str, ending: str) -> str:
    """Return a file name of ASCII letters, digits and hyphens: safe in headers, shells and file systems."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return f"{'-'.join(re.findall('[a-z0-9]+', plain))[:60].strip('-') or 'conversation'}.{ending}"


def _section(message: KeptMessage) -> list[str]:
    model = f" ({message['model']})" if message["model"] else ""
    parts = [f"## {message['role'].capitalize()}{model}"]
    if message["data"].get("thinking"):
        parts.append(_quote(str(message["data"]["thinking"])))
    if message["content"]:
        parts.append(message["content"])
    for name, count in (("image", "images"), ("tool call", "tool_calls")):
        given = message["data"].get(count)
        number = len(given) if isinstance(given, list) else 0
        if number:
            parts.append(f"*{number} {name}{'s' if number > 1 else ''}*")
    if message["status"] in _NOTES:
        parts.append(f"*{_NOTES[message['status']]}*")
    return parts


def _quote(text: str) -> str:
    # Three replacements and no list of lines: a text may have millions of them.
    return "> " + text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").replace("\n", "\n> ")

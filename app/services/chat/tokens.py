"""How many tokens messages and answers take, where the provider does not tell."""

from __future__ import annotations

import json
import math

from app.schemas.chat_results import ToldUsage, Usage
from app.schemas.messages import Message

CHARS_PER_TOKEN = 3.0
"""Of ASCII text; English has about four, code and numbers fewer. Any other character counts as a token."""
_PER_MESSAGE = 8  # tokens of the template around each message
_PER_IMAGE = 1000


def estimate(message: Message) -> int:
    """Return about how many tokens *message* takes, rather too many than too few."""
    calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
    texts = f"{calls}{message.get('content') or ''}"
    ascii_characters = len(texts.encode("ascii", "ignore"))
    others = len(texts) - ascii_characters
    images = len(message.get("images") or ())
    return _PER_MESSAGE + math.ceil(ascii_characters / CHARS_PER_TOKEN) + others + images * _PER_IMAGE


def measure(response: str, usage: ToldUsage | None) -> Usage:
    """Return the tokens as the provider counted them, else an estimate that says it is one."""
    if usage is None:
        estimate = int(len(response.split()) * 1.3)
        return {
            "prompt_tokens": None,
            "completion_tokens": estimate,
            "total_tokens": None,
            "estimated": True,
        }
    prompt, completion = usage.get("prompt_tokens"), usage["completion_tokens"]
    total = usage.get("total_tokens") or (prompt or 0) + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "estimated": False,
    }

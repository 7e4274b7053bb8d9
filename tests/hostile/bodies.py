"""A valid body for each route that takes one."""

from __future__ import annotations

from typing import Any

_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "Light.", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"sky\"}"}}
    ]},
    {"role": "tool", "content": "blue", "tool_call_id": "c1"},
]  # fmt: skip
_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at a thing.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
_FORMAT = {
    "type": "object",
    "properties": {"color": {"type": "string", "pattern": "^b"}},
    "required": ["color"],
}
_WINDOW = {"from": "01:00", "to": "05:00"}
_EXPORTED = {
    "version": 1,
    "title": "Sky",
    "system_prompt": "Be brief.",
    "provider": "ollama",
    "model": "tiny",
    "created_at": "2026-01-01T00:00:00Z",
    "messages": [
        {"role": "user", "content": "Hi", "data": {}, "created_at": "2026-01-01T00:00:00Z"},
        {"role": "assistant", "content": "Hello", "status": "complete", "usage": {"total_tokens": 3}},
    ],
}

BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/chat"): {
        "message": "Why is the sky blue?", "messages": _MESSAGES, "provider": "ollama", "model": "tiny",
        "temperature": 0.5, "top_p": 0.9, "stop": ["."], "seed": 7, "tools": [_TOOL], "format": _FORMAT,
        "stream": False, "options": {"num_ctx": 2048}, "keep_alive": "5m", "think": False, "logprobs": True,
        "top_logprobs": 2, "truncate": True,
    },
    ("POST", "/api/chat/compare"): {
        "message": "Why?", "targets": [{"provider": "ollama", "model": "tiny"}, {"provider": "ollama"}],
        "temperature": 0.1, "stream": False,
    },
    ("POST", "/api/embeddings"): {"model": "tiny", "input": ["the sky", "the sea"], "provider": "ollama"},
    ("POST", "/v1/chat/completions"): {
        "model": "tiny", "messages": _MESSAGES, "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.5, "tools": [_TOOL], "response_format": {"type": "json_object"}, "n": 1,
    },
    ("POST", "/v1/completions"): {"model": "tiny", "prompt": "The sky is", "max_tokens": 5, "stream": False},
    ("POST", "/v1/embeddings"): {"model": "tiny", "input": ["the sky"], "encoding_format": "float"},
    ("POST", "/api/providers/ollama/copy"): {"source": "tiny", "destination": "other"},
    ("POST", "/api/providers/ollama/load"): {"model": "tiny", "keep_alive": "5m"},
    ("POST", "/api/providers/ollama/unload"): {"model": "tiny"},
    ("POST", "/api/providers/ollama/create"): {
        "model": "mine", "from": "tiny", "system": "Be brief.", "parameters": {"num_ctx": 2048}, "overwrite": True,
    },
    ("POST", "/api/providers/ollama/pull"): {"model": "127.0.0.1:9/library/tiny:1", "insecure": True, "dry_run": True},
    ("POST", "/api/providers/ollama/updates"): {"models": ["tiny"], "dry_run": True},
    ("POST", "/api/providers/ollama/rollback"): {"model": "tiny"},
    ("POST", "/api/conversations"): {"title": "Sky", "system_prompt": "Be brief.", "provider": "ollama", "model": "tiny"},
    ("PATCH", "/api/conversations/{id}"): {"title": "Sky", "system_prompt": None, "model": "tiny"},
    ("POST", "/api/conversations/import"): {"conversations": [_EXPORTED, _EXPORTED]},
    ("POST", "/api/providers"): {
        "id": "mine", "name": "Mine", "kind": "openai", "enabled": False, "base_url": "http://127.0.0.1:9/v1",
        "api_key": "sk-1", "model": "m",
    },
    ("PUT", "/api/providers/{id}"): {"name": "Groq", "base_url": "http://127.0.0.1:9/v1", "enabled": False, "model": "m"},
    ("PATCH", "/api/providers/{id}"): {"enabled": False, "api_key": "sk-1", "model": "m"},
    ("PUT", "/api/settings"): {
        "default_provider": "ollama", "fallback_provider": None, "system_prompt": "Be brief.", "temperature": 0.5,
        "timeouts": {"connect": 3, "idle": 5}, "pulls": {"window": _WINDOW, "keep_days": 7},
        "updates": {"enabled": False, "time": "03:00", "window": _WINDOW}, "pinned_models": ["tiny"],
        "model_defaults": {"tiny": {"num_ctx": 2048}}, "usage": {"keep_days": 90},
    },
}  # fmt: skip

FREE = {("POST", "/api/providers/{id}/test")}
"""Routes whose body may be empty."""

"""A request to a provider's OpenAI API, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.services.providers.store import Provider
from app.services.usage.log import CallRecord
from app.upstream.json import count

Json = dict[str, Any]


@dataclass
class Passage:
    """One request on its way through.

    :param model: as the provider calls it; empty for the provider's own choice
    :param check: raises when an answer that came in one piece is not what was asked for
    """

    endpoint: str
    provider_id: str
    model: str
    body: Json
    request_id: str
    check: Callable[[Provider, Json], None] | None = None
    usage: Json = field(default_factory=dict)
    outcome: str = "ok"
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come as it is made."""
        return bool(self.body.get("stream")) and self.endpoint != "embeddings"

    @property
    def sent(self) -> Json:
        """The body for the provider."""
        body = {**self.body, "model": self.model}
        if self.endpoint == "embeddings":  # as OpenAI does when nothing is said
            body.setdefault("encoding_format", "float")
        return body

    @property
    def choices(self) -> int:
        """How many answers are asked for: `n` for each prompt."""
        number, prompts = self.body.get("n"), self.body.get("prompt")
        several = isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts)
        each = number if type(number) is int else 1
        return each * max(1, len(prompts)) if isinstance(prompts, list) and several else each

    @property
    def seconds(self) -> float:
        """How long it takes so far."""
        return round(time.monotonic() - self.started, 6)

    def record(self) -> CallRecord:
        """Return what is kept of it."""
        return CallRecord(
            provider=self.provider_id,
            model=self.model,
            endpoint=self.endpoint,
            prompt_tokens=count(self.usage.get("prompt_tokens")),
            completion_tokens=count(self.usage.get("completion_tokens")),
            latency=self.seconds,
            time_to_first_token=self.first_token,
            outcome=self.outcome,
            streamed=self.streamed,
            request_id=self.request_id,
        )

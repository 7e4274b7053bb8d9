"""One request to one provider, and what has come back of it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from app.errors import ServiceError
from app.schemas.chat import ChatBody
from app.services.chat.dialects.base import Answer, Dialect
from app.services.providers.store import Provider

Event = tuple[str, dict[str, Any]]
"""A name and its data, as a client reads them in a stream."""


@dataclass
class Attempt:
    """One request to one provider.

    :param body: the chat that it is for, with all its messages
    :param request: what is sent, in the provider's words, without the model
    :param needs: the capabilities that a model must have for it
    :param notices: what was done otherwise than asked
    """

    provider: Provider
    dialect: Dialect
    model: str
    model_is_named: bool
    body: ChatBody
    request: dict[str, Any]
    request_id: str
    answer: Answer
    needs: frozenset[str] = frozenset()
    notices: list[str] = field(default_factory=list)
    first_error: ServiceError | None = None  # of the attempt before, at another provider
    error: ServiceError | None = None
    started: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None
    ended_at: float | None = None
    reads: int = 0  # that brought a part of the answer
    is_started: bool = False  # the client of a stream knows who is asked
    is_done: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes as a stream."""
        return bool(self.request.get("stream"))

    @property
    def outcome(self) -> str:
        """How it ended: `ok`, an error's slug, or `client_left`."""
        if self.is_done:
            return "ok"
        return self.error.error_type if self.error else "client_left"

    @property
    def seconds(self) -> float:
        """How long it took, or takes so far."""
        return (self.ended_at or time.monotonic()) - self.started

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return "".join(self.answer.text)

    @property
    def thinking(self) -> str:
        """What the model has thought so far."""
        return "".join(self.answer.thoughts)

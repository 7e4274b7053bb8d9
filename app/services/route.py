"""The two ways to a provider's chat, in whose words a question is put and an answer understood."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from app.errors import NotSupported
from app.services.answer import Answer
from app.services.providers import Provider
from app.upstream.hanging_up import Register
from app.upstream.reading import Body

Json = dict[str, Any]

OLLAMA_ONLY = ("options", "keep_alive", "truncate")
"""What only Ollama's own API knows."""


class Route(Protocol):
    """A way to a provider's chat."""

    def request(self, body: Json) -> tuple[Json, list[str]]:
        """Return the request for *body*, without model and stream, and what of *body* is not in it.

        :param body: a chat as :class:`~app.schemas.chat.ChatRequestSchema` loads it, with all its `messages`
        """

    def open(self, model: str, request: Json, register: Register) -> Body:
        """Send a request and return its open answer.

        :raises ModelNotFound: when the provider does not have the model
        """

    def new_answer(self) -> Answer:
        """Return an empty answer."""

    def translated(self, model: str) -> AbstractContextManager[None]:
        """Turn what reading an answer raises into our errors."""


def refuse_ollamas_own(provider: Provider, body: Json) -> None:
    """See to it that nothing of *body* would be dropped in silence.

    :raises NotSupported: for what only Ollama's own API knows
    """
    for name in OLLAMA_ONLY:
        if body.get(name) is not None:
            raise NotSupported(
                f"{name}: {provider.name} does not know it; it is Ollama's own.",
                hint="Leave it out, or ask a provider of the kind ollama. temperature, top_p, seed, stop and "
                "max_tokens work everywhere.",
                details={name: [f"{provider.name} does not know it."], "provider": provider.id},
            )

"""What a dialect is: the language in which one provider is asked, and understood."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from app.schemas.chat import ChatBody
from app.services.chat.dialects.answers import Answer
from app.upstream.reading import Body, Register

Request = dict[str, object]
"""What is sent to a provider, in its own words."""


class Dialect(Protocol):
    """The language in which one provider is asked and understood; made for each attempt."""

    window_before: int | None
    """The window in tokens that the model was loaded with before the attempt, where that is known."""

    def request(self, body: ChatBody) -> tuple[Request, list[str]]:
        """Return the request for *body*, without model and stream, and notices of what is not in it.

        :raises NotSupported: for what the provider does not know
        """

    def open(self, model: str, request: Request, register: Register) -> Body:
        """Send a request and return its open answer.

        :param register: told the connection before the answer begins, so that one can hang up on it
        :raises ModelNotFound: when the provider does not have the model
        """

    def new_answer(self) -> Answer:
        """Return an empty answer."""

    def translated(self, model: str) -> AbstractContextManager[None]:
        """Turn what reading an answer raises into our errors."""

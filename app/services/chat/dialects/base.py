"""The interface of a dialect: it writes the requests and reads the answers of one chat API."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from app.schemas.chat import ChatBody
from app.services.chat.dialects.answers import Answer
from app.upstream.reading import Opening

Request = dict[str, object]
"""The JSON body of a request, in the provider's words."""


class Dialect(Protocol):
    """Writes the requests and reads the answers of one chat API; made for each attempt."""

    window_before: int | None
    """The window, in tokens, with which the model was loaded before the attempt, if it is known."""

    def request(self, body: ChatBody) -> tuple[Request, list[str]]:
        """Return the request for *body*, without model and stream, and notices about the fields left out.

        :raises NotSupported: when the provider does not know a field of *body*
        """

    def open(self, model: str, request: Request) -> Opening:
        """Send a request and return its open answer.

        :raises ModelNotFound: when the provider does not have the model
        """

    def new_answer(self) -> Answer:
        """Return an empty answer, which :meth:`open`'s bytes are fed to."""

    def translated(self) -> AbstractContextManager[None]:
        """Turn the exceptions of reading an answer, in this block, into service errors."""

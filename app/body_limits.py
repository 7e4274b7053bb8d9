"""How large a request's body may be: a view says it by a mark, and :mod:`app.security` holds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

BODY_LIMIT = 1_000_000  # bytes, where a view does not say otherwise
CHAT_BODY_LIMIT = 16_000_000  # bytes: images and long conversations

View = TypeVar("View", bound=Callable[..., Any])

_MARK = "accepted_bodies"


@dataclass(frozen=True)
class Accepted:
    """The bodies that a view accepts.

    :param limit: bytes that a JSON body may have
    :param file_type: the media type of a file, which may have BACKEND_MAX_UPLOAD bytes; empty for no file
    """

    limit: int = BODY_LIMIT
    file_type: str = ""


def accepts(limit: int = BODY_LIMIT, *, file_type: str = "") -> Callable[[View], View]:
    """Mark a view with the bodies that it accepts; a view without a mark takes JSON up to BODY_LIMIT."""

    def mark(view: View) -> View:
        setattr(view, _MARK, Accepted(limit, file_type))
        return view

    return mark


@lru_cache(maxsize=512)  # more than there are views
def accepted_by(view: object) -> Accepted:
    """Return the bodies that *view* accepts."""
    found: Accepted = getattr(view, _MARK, Accepted())
    return found

"""The size limits of request bodies: a view declares its own, and :mod:`app.security` enforces them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from app.large_json import MAX_CONTAINERS

BODY_LIMIT = 1_000_000  # bytes, for a view that declares no limit
CHAT_BODY_LIMIT = 16_000_000  # bytes: images and long conversations

View = TypeVar("View", bound=Callable[..., Any])

_MARK = "accepted_bodies"


@dataclass(frozen=True)
class Accepted:
    """The bodies that a view accepts.

    :param limit: the largest JSON body, in bytes
    :param containers: the most lists and objects in a JSON body
    :param file_type: the media type of a file upload, which may have BACKEND_MAX_UPLOAD bytes; empty when the
        view takes no file
    """

    limit: int = BODY_LIMIT
    containers: int = MAX_CONTAINERS
    file_type: str = ""


def accepts(
    limit: int = BODY_LIMIT, *, containers: int = MAX_CONTAINERS, file_type: str = ""
) -> Callable[[View], View]:
    """Declare the bodies that a view accepts; a view without this decorator takes JSON up to BODY_LIMIT."""

    def mark(view: View) -> View:
        setattr(view, _MARK, Accepted(limit, containers, file_type))
        return view

    return mark


@lru_cache(maxsize=512)  # the program has fewer views
def accepted_by(view: object) -> Accepted:
    """Return the bodies that *view* accepts."""
    found: Accepted = getattr(view, _MARK, Accepted())
    return found

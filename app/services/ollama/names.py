"""Check the model names that clients send, and compare the names that Ollama lists.

Ollama lists every file in its models folder, so it may list a name that its own grammar refuses. Such a name
raises no error here. Its key is the name itself, which equals the key of no other model.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

from app.errors import InvalidModelName
from app.model_name import ModelName
from app.schemas.models import Named

_Model = TypeVar("_Model", bound=Named)


_REMEMBERED = 4096  # names; one request compares a few lists of models name by name


@lru_cache(_REMEMBERED)
def check_name(model: str) -> ModelName:
    """Parse a name that a client sent. Only valid names are sent to Ollama.

    :raises InvalidModelName: for a name that Ollama would not accept
    """
    try:
        return ModelName.parse(model)
    except ValueError as exc:
        raise InvalidModelName(
            str(exc),
            hint="A name looks like llama3.2:1b or hf.co/user/repo:Q4_K_M.",
            details={"model": [str(exc)]},
        ) from exc


@lru_cache(_REMEMBERED)
def parse_listed(model: str) -> ModelName | None:
    """Parse a name that Ollama lists; return None for a name that its grammar does not allow."""
    try:
        return ModelName.parse(model)
    except ValueError:
        return None


@lru_cache(_REMEMBERED)
def key_of(model: str) -> str:
    """Return the key that identifies *model*: its full name in lower case, because names ignore case.

    A name that the grammar does not allow is its own key: it differs from every full name.
    """
    name = parse_listed(model)
    return model if name is None else name.key.full


def find_model(models: Iterable[_Model], model: str) -> _Model | None:
    """Return the entry of *models* with the name *model*; None if there is none."""
    key = key_of(model)
    return next((entry for entry in models if key_of(entry["name"]) == key), None)

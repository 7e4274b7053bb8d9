"""Names of models: what a client types is checked, what Ollama lists is compared by its key.

Ollama lists what lies in its folder, so a listed name may be one that its own grammar refuses. Such a name
never fails here: it has a key of its own, and no other model is mixed up with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

from app.errors import InvalidModelName
from app.model_name import ModelName
from app.schemas.models import Named

_Model = TypeVar("_Model", bound=Named)


_REMEMBERED = 4096  # names; a few lists of models are compared name by name for one request


@lru_cache(_REMEMBERED)
def check_name(model: str) -> ModelName:
    """Return a name that a client typed, parsed: nothing but a valid name is ever sent to Ollama.

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
    """Return a name that Ollama lists, parsed; None for one that its grammar does not allow."""
    try:
        return ModelName.parse(model)
    except ValueError:
        return None


@lru_cache(_REMEMBERED)
def key_of(model: str) -> str:
    """Return what tells *model* from every other: the full name in lower case, since names ignore case.

    A name that the grammar does not allow is its own key: it equals no full name.
    """
    name = parse_listed(model)
    return model if name is None else name.key.full


def find_model(models: Iterable[_Model], model: str) -> _Model | None:
    """Return the one of *models* that is called *model*."""
    key = key_of(model)
    return next((entry for entry in models if key_of(entry["name"]) == key), None)

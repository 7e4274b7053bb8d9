"""The names of models: what users type is checked, what Ollama lists is found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.errors import InvalidModelName
from app.model_name import ModelName

Json = dict[str, Any]


def check_name(model: str) -> ModelName:
    """Return *model* parsed: nothing but a name that Ollama accepts is ever sent to it.

    :raises InvalidModelName: for any other
    """
    try:
        return ModelName.parse(model)
    except ValueError as exc:
        raise InvalidModelName(
            str(exc),
            hint="A name looks like llama3.2:1b or hf.co/user/repo:Q4_K_M.",
            details={"model": [str(exc)]},
        ) from exc


def find_model(models: Iterable[Json], name: ModelName) -> Json | None:
    """Return the one of *models* that is called *name*: names are case-insensitive."""
    return next((model for model in models if _key(model["name"]) == name.key), None)


def _key(listed: str) -> ModelName | None:
    try:
        return ModelName.parse(listed).key
    except ValueError:  # Ollama's business
        return None


def full_name(model: str) -> str:
    """Return the full name of *model* in lower case: names ignore case.

    :raises ValueError: for no name
    """
    return ModelName.parse(model).key.full


def key_of(listed: str) -> str:
    """Return what tells a model that Ollama lists, or that the settings name, from all others.

    That is its full name in lower case; of a name that no grammar allows, the name itself.
    """
    try:
        return full_name(listed)
    except ValueError:
        return listed.lower()

"""Model names: ``[host/][namespace/]model[:tag]``.

The grammar and the defaults are Ollama's (``types/model/name.go`` in its source). No other name is ever sent
to Ollama.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_PARTS = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}


@dataclass(frozen=True, slots=True)
class ModelName:
    """The full name of a model; ``str()`` is the short form that Ollama shows, always with the tag."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Parse *text*, and fill in Ollama's defaults.

        :raises ValueError: when Ollama would refuse the name; the message names the wrong part
        """
        path, slash, last = text.rpartition("/")
        model, colon, tag = last.partition(":")
        parts = path.split("/") if slash else []
        if len(parts) > 2:
            raise ValueError("A model name has at most the parts host/namespace/model:tag.")
        name = cls(
            host=parts[0] if len(parts) == 2 else DEFAULT_HOST,
            namespace=parts[-1] if parts else DEFAULT_NAMESPACE,
            model=model,
            tag=tag if colon else DEFAULT_TAG,
        )
        for part, pattern in _PARTS.items():
            if not pattern.fullmatch(getattr(name, part)):
                raise ValueError(
                    f"Not a model name: its {part} is missing, too long, or has a character other than "
                    "letters, digits, '_', '-' and '.'."
                )
        return name

    @property
    def key(self) -> ModelName:
        """The name in lower case, for comparisons: Ollama's names are case-insensitive."""
        return ModelName(self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())

    @property
    def full(self) -> str:
        """The name with all four parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def __str__(self) -> str:
        short = f"{self.model}:{self.tag}"
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{short}"
        return short

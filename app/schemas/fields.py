"""The fields and validators that several resources share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate

_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")  # Go's
_LONGEST_NAME = 1000  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class StrictBool(fields.Bool):
    """true or false; refuses numbers and texts that marshmallow would convert."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class WordBool(fields.Bool):
    """true or false, also as the words ``true`` and ``false`` of a query parameter."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(truthy={True, "true"}, falsy={False, "false"}, **kwargs)


class StrictFloat(fields.Float):
    """A number; refuses a text that holds a number."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class UtcDateTime(fields.AwareDateTime):
    """A time; dumped in UTC as ISO 8601 with a ``Z``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default_timezone=timezone.utc, **kwargs)

    def _serialize(self, value: datetime | None, *_: Any, **__: Any) -> str | None:
        if value is None:
            return None
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


class Digest(fields.Str):
    """A SHA-256 digest, with or without ``sha256:`` as Ollama sends it; loaded as ``sha256:<64 hex>``."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, *args, **kwargs)
        bare = text.removeprefix("sha256:").lower()
        if len(bare) != 64 or not set(bare) <= set("0123456789abcdef"):
            raise ValidationError("Not a SHA-256 digest.")
        return f"sha256:{bare}"


class KeepAlive(fields.Field[Any]):
    """How long a model stays in memory: seconds, or a duration such as ``10m``; negative for ever.

    :param may_be_zero: whether to allow 0, which unloads the model after its answer
    """

    def __init__(self, *, may_be_zero: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._may_be_zero = may_be_zero

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float | str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
        is_text = isinstance(value, str) and len(value) < 40 and _DURATION.fullmatch(value)
        if not is_number and not is_text:
            raise ValidationError('Give a number of seconds, or a duration with its unit such as "10m".')
        if not self._may_be_zero and not re.search("[1-9]", str(value)):
            raise ValidationError("0 unloads the model: use POST /api/providers/ollama/unload.")
        kept: float | str = value
        return kept


class TextsField(fields.Field[Any]):
    """A list of texts that are not empty; a single text is loaded as a list with one text.

    :param count: checks the number of texts. It is not in ``validate``, because apispec would document it as
        the length of a text.
    """

    def __init__(self, *, count: validate.Length | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_count = count

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise ValidationError("Give a text, or a list of texts that are not empty.")
        if self._check_count:
            self._check_count(texts)
        return texts


def model_name(description: str | None = None) -> fields.Str:
    """Return the required field ``model`` for a request about one of Ollama's models."""
    metadata = {"label": "Model name", **({"description": description} if description else {})}
    return fields.Str(required=True, validate=not_blank("Model name"), metadata=metadata)


def not_blank(label: str) -> Any:
    """Return a validator that refuses an empty text and white space alone."""

    def check(value: str) -> None:
        if not value.strip():
            raise ValidationError(f"{label} is required")

    return check


def no_controls(value: str) -> None:
    """Refuse control characters in a name: they are typing errors, and PostgreSQL cannot store NUL."""
    if _CONTROL.search(value, 0, _LONGEST_NAME):  # another check refuses what is longer
        raise ValidationError("Give a name without control characters.")


def check_base_url(value: str) -> None:
    """Check the address of a provider: an http or https URL without a password, query or fragment."""
    try:
        url = urlsplit(value)
        port_is_valid = url.port != 0
        (url.hostname or "").encode("idna")
    except ValueError as exc:
        raise ValidationError("Not a URL, for example http://localhost:11434/v1") from exc
    if url.scheme not in {"http", "https"} or not url.hostname or not port_is_valid:
        raise ValidationError("Give an http or https URL, for example http://localhost:11434/v1")
    if url.username or url.password:
        raise ValidationError("Leave user and password out of the URL; set api_key instead")
    if url.query or url.fragment or any(c.isspace() for c in value):
        raise ValidationError("Give the URL up to its path, without '?', '#' or spaces")

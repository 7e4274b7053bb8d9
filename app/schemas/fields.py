"""The base of the schemas of requests, and the fields and validators that several resources share."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, missing, validate

from app.upstream.json import MAX_COUNT, has_half

log = logging.getLogger(__name__)

MOST_FAULTS = 20  # that an error names

_MOST_ENTRIES = 20_000  # of an upstream's list: ten times what the largest provider offers
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")  # Go's
_LONGEST_NAME = 1000  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class RequestSchema(Schema):
    """A request's body or parameters: unknown fields are refused, and an error names each missing field."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # marshmallow looks at each field of a schema; it passes by these at once when they are absent.
        self._optional = frozenset(
            name
            for name, field in self.load_fields.items()
            if not field.required and field.load_default is missing
        )

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Set the messages for a missing value, so that they name the field."""
        label = field_obj.metadata.get("label", field_name.replace("_", " ").capitalize())
        field_obj.error_messages["required"] = f"{label} is required"
        if not field_obj.allow_none:
            field_obj.error_messages["null"] = f"{label} is required"

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Return the loaded *data*; of many unknown keys, only the first ones are refused by name."""
        if (kwargs.get("unknown") or self.unknown) == RAISE and isinstance(data, dict):
            data = self._without_most_unknown(data)
        return super().load(data, **{**kwargs, "partial": self._optional})

    def _without_most_unknown(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return *data* with MOST_FAULTS unknown keys at most: 100,000 faults take seconds."""
        if len(data) <= len(self.fields) + MOST_FAULTS:
            return data
        known = {field.data_key or name for name, field in self.fields.items()}
        kept = {*known, *islice((key for key in data if key not in known), MOST_FAULTS)}
        return {key: value for key, value in data.items() if key in kept}


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


class Text(fields.Str):
    """A text of an upstream; refuses half a character, which no file and no database takes."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, *args, **kwargs)
        if has_half(text):
            raise ValidationError("Holds half a character.")
        return text


class Count(fields.Int):
    """A number of things, such as bytes or tokens, from an upstream.

    :param least: the smallest number; the largest is :data:`~app.upstream.json.MAX_COUNT`
    """

    def __init__(self, *, least: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._least = least

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        number: int | None = super()._deserialize(value, *args, **kwargs)
        if isinstance(value, bool) or number is None or not self._least <= number <= MAX_COUNT:
            raise ValidationError("Not a possible number.")
        return number


class Entries(fields.List[Any]):
    """The objects of an upstream's list; a faulty one is left out, and does not hide the others.

    A list without any valid object is no list. null is an empty list: Go writes it so.
    """

    def __init__(self, schema: type[Schema] | Schema) -> None:
        super().__init__(fields.Nested(schema), required=True, allow_none=True)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
            raise ValidationError("Not a list, or one of too many entries.")
        loaded = [_attempt(self.inner.deserialize, entry) for entry in value]
        found = [entry for entry in loaded if not isinstance(entry, ValidationError)]
        fault = next((entry for entry in loaded if isinstance(entry, ValidationError)), None)
        if fault is not None:
            if not found:
                raise fault
            left_out = len(loaded) - len(found)
            log.warning("%d of %d entries are left out: %s", left_out, len(loaded), fault.messages)
        return found


class Items(fields.List[Any]):
    """A list of a request whose items are checked.

    Its length is checked first; then its items, until there are as many faults as an error names.
    """

    def _deserialize(self, value: Any, *_: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        _check_length(self, value)
        loaded: list[Any] = []
        faults: dict[int, Any] = {}
        for at, item in enumerate(value):
            found = _attempt(self.inner.deserialize, item, **kwargs)
            if not isinstance(found, ValidationError):
                loaded.append(found)
                continue
            faults[at] = found.messages
            if _count(faults) >= MOST_FAULTS:
                break
        if faults:
            raise ValidationError(faults)
        return loaded


class Table(fields.Dict):
    """An object of a request with keys of the client's choice; it is checked as :class:`Items` is."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        _check_length(self, value)
        loaded: dict[Any, Any] = {}
        faults: dict[Any, Any] = {}
        for key, item in value.items():
            found = _attempt(super()._deserialize, {key: item}, *args, **kwargs)
            if not isinstance(found, ValidationError):
                loaded |= found
                continue
            faults |= found.messages_dict
            if _count(faults) >= MOST_FAULTS:
                break
        if faults:
            raise ValidationError(faults)
        return loaded


def _attempt(load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what *load* returns, or the fault that it raises."""
    try:
        return load(*args, **kwargs)
    except ValidationError as exc:
        return exc


def _check_length(field: fields.Field[Any], value: list[Any] | dict[Any, Any]) -> None:
    for check in field.validators:
        if isinstance(check, validate.Length):
            check(value)


def _count(faults: Any) -> int:
    """Return the number of marshmallow's *faults*."""
    return sum(map(_count, faults.values())) if isinstance(faults, dict) else len(faults)


class UtcDateTime(fields.AwareDateTime):
    """A time; loaded in UTC, dumped in UTC as ISO 8601 with a ``Z``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default_timezone=timezone.utc, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        moment: datetime = super()._deserialize(value, *args, **kwargs)
        try:
            return moment.astimezone(timezone.utc)
        except OverflowError as exc:  # in UTC it lies before the year 1, or after the year 9999
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from exc

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
        if self._check_count and isinstance(texts, list):
            self._check_count(texts)
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise ValidationError("Give a text, or a list of texts that are not empty.")
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

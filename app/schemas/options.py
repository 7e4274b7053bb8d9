"""The fields of Ollama's native API: options, the format of the answer, and thinking."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.format_checker import check_schema, start
from app.schemas.fields import RequestSchema, StrictBool, StrictFloat, TextsField

THINK_LEVELS = ("low", "medium", "high", "max")

MAX_SCHEMA_VALUES = 10_000
MAX_SCHEMA_CHARACTERS = 100_000  # of its names, texts and numbers
MAX_SCHEMA_DEPTH = 64  # of nested objects and lists; each field of a field is two

_INT = 2**63
_FLOAT = 3.4e38  # a larger number is infinite in 32 bits


def _int(least: int = -_INT, description: str | None = None) -> fields.Int:
    metadata = {"description": description} if description else None
    return fields.Int(strict=True, validate=validate.Range(least, _INT - 1), metadata=metadata)


def _float(least: float = -_FLOAT, most: float = _FLOAT) -> StrictFloat:
    return StrictFloat(validate=validate.Range(least, most))


class OptionsSchema(RequestSchema):
    """Ollama's options: of a chat, and as the default parameters of a model.

    Unknown options are refused here, because Ollama ignores them silently. Names and types are those of
    Ollama's ``api/types.go``: integers of 64 bits, floats of 32 bits.
    """

    num_ctx = _int(1, "The model's window in tokens; a change loads the model again")
    num_predict = _int(-2, "The most tokens of an answer; -1 for no limit")
    num_keep = _int(-1, "The number of tokens at the beginning of the prompt that are never dropped")
    num_batch = _int(1, "The number of prompt tokens that are processed at once")
    num_gpu = _int(-1, "The number of the model's layers on the GPU")
    num_thread = _int(0, "Threads; 0 lets Ollama choose")
    main_gpu = _int(0, "The GPU for small tensors")
    draft_num_predict = _int(0, "The number of tokens that a draft model predicts ahead")
    use_mmap = StrictBool()
    seed = _int()
    top_k = _int(0, "The number of likeliest tokens to choose the next one from")
    top_p = _float(0, 1)
    min_p = _float(0, 1)
    typical_p = _float(0, 1)
    repeat_last_n = _int(-1, "The number of last tokens to avoid repeating; -1 for num_ctx")
    temperature = _float(0)
    repeat_penalty = _float()
    presence_penalty = _float()
    frequency_penalty = _float()
    stop = TextsField(metadata={"description": "Texts; the answer ends before the first of them"})


class ThinkField(fields.Field[Any]):
    """Whether a model thinks before it answers, and how much."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool | str:
        if isinstance(value, bool) or (isinstance(value, str) and value in THINK_LEVELS):
            chosen: bool | str = value
            return chosen
        raise ValidationError(f"Give true, false or one of {', '.join(THINK_LEVELS)}.")


class FormatField(fields.Field[Any]):
    """``json``, or a JSON schema for the answer."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str | dict[str, Any]:
        if value == "json":
            start()
            return "json"
        if not isinstance(value, dict) or not value:
            raise ValidationError('Give "json", or a JSON schema as an object.')
        _check_size(value)
        verdict = check_schema(value)
        if verdict.is_valid is False:  # None: the provider and the notice of the answer will tell
            raise ValidationError(f"Not a JSON schema: {verdict.reason}")
        return value


def _check_size(schema: dict[str, Any]) -> None:
    """Refuse a schema that is too large or nested too deeply."""
    values = characters = 0
    level: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        inner: list[Any] = []
        for item in level:
            values += 1
            characters += _length(item)
            if values > MAX_SCHEMA_VALUES or characters > MAX_SCHEMA_CHARACTERS:
                raise ValidationError(
                    f"A schema has at most {MAX_SCHEMA_VALUES:,} values and {MAX_SCHEMA_CHARACTERS:,} "
                    "characters. Leave out descriptions and rare fields, or ask for one part at a time."
                )
            if isinstance(item, dict):
                characters += sum(map(len, item))
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return
        level = inner
    raise ValidationError(
        f"A schema is nested at most {MAX_SCHEMA_DEPTH} times. Move its inner parts into `$defs`, and refer "
        "to them with `$ref`."
    )


def _length(item: object) -> int:
    """Return about the number of characters of a text or a number in JSON."""
    if isinstance(item, str):
        return len(item)
    return item.bit_length() // 3 if isinstance(item, int) else 1

"""The fields of Ollama's native API: options, the format of the answer, and thinking."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.schemas.base import RequestSchema
from app.schemas.fields import StrictBool, StrictFloat, TextsField

THINK_LEVELS = ("low", "medium", "high", "max")

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
            return "json"
        if not isinstance(value, dict) or not value:
            raise ValidationError('Give "json", or a JSON schema as an object.')
        if fault := schema_fault(value):
            raise ValidationError(f"Not a JSON schema: {fault}")
        return value


def schema_fault(schema: dict[str, Any]) -> str:
    """Return what is wrong with a JSON schema; empty if it is valid."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        rules = Draft202012Validator.META_SCHEMA
        checker = Draft202012Validator(rules, format_checker=Draft202012Validator.FORMAT_CHECKER)
        fault = best_match(checker.iter_errors(schema))
        elsewhere = _reference_elsewhere(schema)
    except RecursionError:
        return "it is nested too deeply"
    if fault is not None:
        return f"{fault.json_path}: {fault.message[:200]}"
    return f"'{elsewhere[:100]}' points out of the schema, and nothing is fetched" if elsewhere else ""


def _reference_elsewhere(schema: Any) -> str:
    """Return a reference that leads out of *schema*; empty if there is none."""
    if isinstance(schema, list):
        return next(filter(None, map(_reference_elsewhere, schema)), "")
    if not isinstance(schema, dict):
        return ""
    for name in ("$ref", "$dynamicRef"):
        target = schema.get(name)
        if isinstance(target, str) and not target.startswith("#"):
            return target
    return next(filter(None, map(_reference_elsewhere, schema.values())), "")

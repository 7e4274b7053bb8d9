"""What only Ollama's own API has: its options, the format of the answer, thinking."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.schemas.base import RequestSchema
from app.schemas.fields import StrictBool, StrictFloat, TextsField

THINK_LEVELS = ("low", "medium", "high", "max")

_INT = 2**63
_FLOAT = 3.4e38  # more is infinite in 32 bits


def _int(least: int = -_INT, description: str | None = None) -> fields.Int:
    metadata = {"description": description} if description else None
    return fields.Int(strict=True, validate=validate.Range(least, _INT - 1), metadata=metadata)


def _float(least: float = -_FLOAT, most: float = _FLOAT) -> StrictFloat:
    return StrictFloat(validate=validate.Range(least, most))


class OptionsSchema(RequestSchema):
    """Ollama's options, of a chat and as the parameters of a model; it ignores an unknown one silently.

    Their names and types are those of ``api/types.go``: integers of 64 bits, floats of 32.
    """

    num_ctx = _int(1, "The window in tokens; another one than is in force loads the model anew")
    num_predict = _int(-2, "The most tokens of an answer; -1 for no limit")
    num_keep = _int(-1, "Tokens of the beginning that are never dropped")
    num_batch = _int(1, "Tokens of a prompt that are read at once")
    num_gpu = _int(-1, "Layers on the GPU")
    num_thread = _int(0, "Threads; 0 lets Ollama choose")
    main_gpu = _int(0, "The GPU for small tensors")
    draft_num_predict = _int(0, "Tokens that a draft model guesses ahead")
    use_mmap = StrictBool()
    seed = _int()
    top_k = _int(0, "Tokens to choose from")
    top_p = _float(0, 1)
    min_p = _float(0, 1)
    typical_p = _float(0, 1)
    repeat_last_n = _int(-1, "Tokens in which repetitions are looked for; -1 for num_ctx")
    temperature = _float(0)
    repeat_penalty = _float()
    presence_penalty = _float()
    frequency_penalty = _float()
    stop = TextsField(metadata={"description": "Where an answer ends"})


class ThinkField(fields.Field[Any]):
    """Whether a model should think, and how much."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool | str:
        if isinstance(value, bool) or (isinstance(value, str) and value in THINK_LEVELS):
            chosen: bool | str = value
            return chosen
        raise ValidationError(f"Give true, false or one of {', '.join(THINK_LEVELS)}.")


class FormatField(fields.Field[Any]):
    """``json``, or a JSON schema that the answer is to follow."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str | dict[str, Any]:
        if value == "json":
            return "json"
        if not isinstance(value, dict) or not value:
            raise ValidationError('Give "json", or a JSON schema as an object.')
        if fault := schema_fault(value):
            raise ValidationError(f"Not a JSON schema: {fault}")
        return value


def schema_fault(schema: dict[str, Any]) -> str:
    """Return what is wrong with a JSON schema; empty for a valid one."""
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
    """Return a ``$ref`` to something outside of *schema*; empty when there is none."""
    if isinstance(schema, list):
        return next(filter(None, map(_reference_elsewhere, schema)), "")
    if not isinstance(schema, dict):
        return ""
    for name in ("$ref", "$dynamicRef"):
        target = schema.get(name)
        if isinstance(target, str) and not target.startswith("#"):
            return target
    return next(filter(None, map(_reference_elsewhere, schema.values())), "")
